//! What the shares of a namespace may take.

use std::collections::BTreeMap;

use shoal_crds::{QuotaPhase, ShareQuota, ShareTypeQuota, condition::reasons};
use shoal_domain::{
    Class, Failure, Next,
    share_quota::{Amount, Asked, Observed, Usage, admit, decide},
};

use crate::fixtures::*;

fn of_gold(hard: shoal_crds::QuotaLimits) -> ShareQuota {
    let mut quota = quota(limits(None, None, None));
    quota.spec.per_share_type = vec![ShareTypeQuota {
        share_type_name: "gold".into(),
        hard,
    }];
    quota
}

fn amount(shares: u64, gib: u64) -> Amount {
    Amount {
        shares,
        bytes: u128::from(gib * GI),
    }
}

/// So many shares with so many Gi, two of them and 2Gi of type gold.
fn used(shares: u64, gib: u64) -> Usage {
    Usage {
        total: amount(shares, gib),
        by_type: BTreeMap::from([("gold".into(), amount(2, 2))]),
    }
}

fn new(gib: u64) -> Asked<'static> {
    Asked {
        share_type_name: "gold",
        bytes: gib * GI,
        grows: false,
    }
}

fn grown(gib: u64) -> Asked<'static> {
    Asked {
        grows: true,
        ..new(gib)
    }
}

fn refused(quota: &ShareQuota, used: &Usage, asked: &Asked<'_>, words: &[&str]) {
    let Failure {
        class,
        reason,
        message,
        ..
    } = admit(std::slice::from_ref(quota), used, asked).unwrap_err();
    assert_eq!((class, reason), (Class::Waiting, reasons::QUOTA_EXCEEDED));
    for word in words {
        assert!(message.contains(word), "{message}: {word}");
    }
}

#[test]
fn without_a_quota_there_is_no_limit() {
    assert_eq!(admit(&[], &used(1 << 40, 1 << 30), &new(1 << 29)), Ok(()));
    assert_eq!(
        admit(
            &[quota(limits(None, None, None))],
            &used(1 << 40, 1 << 30),
            &new(1)
        ),
        Ok(())
    );
}

#[test]
fn the_last_share_and_the_last_byte_are_let_in() {
    let three = quota(limits(Some(3), None, None));
    assert_eq!(admit(std::slice::from_ref(&three), &used(2, 0), &new(1)), Ok(()));
    refused(
        &three,
        &used(3, 0),
        &new(1),
        &["'team'", "3 shares", "delete one"],
    );
    refused(
        &quota(limits(Some(0), None, None)),
        &used(0, 0),
        &new(1),
        &["0 shares"],
    );

    let ten = quota(limits(None, Some("10Gi"), None));
    assert_eq!(admit(std::slice::from_ref(&ten), &used(9, 9), &new(1)), Ok(()));
    let one_byte_more = Asked {
        bytes: GI + 1,
        ..new(1)
    };
    refused(
        &ten,
        &used(9, 9),
        &one_byte_more,
        &["10Gi", "together", "ask for less"],
    );
}

#[test]
fn one_share_may_have_so_much() {
    let each = quota(limits(None, None, Some("2Gi")));
    assert_eq!(admit(std::slice::from_ref(&each), &used(9, 9), &new(2)), Ok(()));
    for asked in [new(3), grown(3)] {
        refused(&each, &used(0, 0), &asked, &["one share", "2Gi", "spec.size"]);
    }
}

#[test]
fn shares_of_a_type_have_limits_of_their_own() {
    let two = of_gold(limits(Some(2), None, None));
    refused(&two, &used(2, 2), &new(1), &["2 shares of type 'gold'"]);
    let other = Asked {
        share_type_name: "silver",
        ..new(1)
    };
    assert_eq!(admit(&[two], &used(2, 2), &other), Ok(()));
    refused(
        &of_gold(limits(None, Some("2Gi"), None)),
        &used(9, 9),
        &new(1),
        &["of type 'gold'", "2Gi"],
    );
}

#[test]
fn of_several_quotas_all_hold() {
    let wide = quota(limits(Some(100), None, None));
    let narrow = quota(limits(Some(1), None, None));
    for quotas in [[wide.clone(), narrow.clone()], [narrow, wide]] {
        assert!(admit(&quotas, &used(1, 1), &new(1)).is_err());
    }
}

#[test]
fn growing_takes_room_and_no_further_place() {
    let full = quota(limits(Some(2), Some("10Gi"), None));
    // What others have: two already, for the limit was lowered.
    assert_eq!(admit(std::slice::from_ref(&full), &used(2, 6), &grown(4)), Ok(()));
    refused(&full, &used(2, 6), &grown(5), &["10Gi"]);
}

#[test]
fn what_is_told_is_what_is_charged_and_comes_to_rest() {
    let mut quota = quota(limits(Some(3), Some("10Gi"), None));
    quota.spec.per_share_type = of_gold(limits(Some(1), None, None)).spec.per_share_type;
    let usage = used(3, 5);
    let tell = |quota: &ShareQuota| {
        decide(
            &Observed {
                quota: quota.clone(),
                usage: usage.clone(),
            },
            now(),
        )
    };
    let told = tell(&quota);
    let status = told.status.clone();
    let all = status.used.unwrap();
    assert_eq!((all.shares, all.capacity), (3, Some(size("5Gi"))));
    let gold = &status.used_per_share_type[0];
    assert_eq!((gold.share_type_name.as_str(), gold.used.shares), ("gold", 2));
    assert_eq!(status.phase, Some(QuotaPhase::Exceeded), "more of gold than one");
    assert!(matches!(told.next, Next::After(_)));
    quota.status = Some(status.clone());
    assert_eq!(tell(&quota).status, status);
    quota.spec.per_share_type.clear();
    assert_eq!(tell(&quota).status.phase, Some(QuotaPhase::Active));
}
