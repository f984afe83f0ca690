//! Every rule of [`shoal_domain::share_access_rule`].

use std::collections::{BTreeMap, HashMap};

use shoal_crds::{
    AccessLevel, AccessPhase, Protocol, ShareAccessRule, Squash,
    condition::{reasons, types},
    names::RESERVED_IDENTITIES,
};
use shoal_domain::{
    Class, Failure, Next, Scope, Step,
    grant::{Client, Grant, Key},
    share_access_rule::{
        Credentials, Effect, Observed, Plan, RuleView, Terms, Verdict, decide, plan, reports, summary,
        waiting_reports,
    },
};

use crate::fixtures::*;

const UID: &str = "uid-a";

fn judged(protocol: Protocol, rules: &[RuleView]) -> Plan {
    judged_with(protocol, rules, &HashMap::new())
}

fn judged_with(protocol: Protocol, rules: &[RuleView], refused: &HashMap<Client, Failure>) -> Plan {
    let terms = Terms {
        protocol,
        squash: Squash::Root,
        own_identity: Some("shoal-operator"),
        refused,
    };
    plan(terms, rules)
}

fn nfs(rules: impl IntoIterator<Item = ShareAccessRule>) -> Plan {
    judged(
        Protocol::NFS,
        &rules.into_iter().map(RuleExt::view).collect::<Vec<_>>(),
    )
}

fn cephfs(rules: impl IntoIterator<Item = ShareAccessRule>) -> Plan {
    judged(
        Protocol::CephFS,
        &rules.into_iter().map(RuleExt::view).collect::<Vec<_>>(),
    )
}

/// Why a rule is refused.
fn why(plan: &Plan, name: &str) -> &'static str {
    match &plan.verdicts[name] {
        Verdict::Refused(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}

fn is_granted(plan: &Plan, name: &str) -> bool {
    matches!(plan.verdicts[name], Verdict::Grant(_))
}

/// Two rules of one namespace that name the same identity get the same key, and that of one of them may be hidden.
#[test]
fn an_identity_of_the_form_that_is_made_can_not_be_named() {
    let made = "shoal-3f5a92c1-70f4-4e0a-9d3c-2b6a51c8e701";
    let mut in_a_secret = cephx_rule("b", None).named_in("who").view();
    in_a_secret.secret_value = Some(Ok(made.into()));
    let plan = judged(
        Protocol::CephFS,
        &[
            cephx_rule("a", Some(made)).view(),
            in_a_secret,
            cephx_rule("c", Some("shoal-trainer")).view(),
        ],
    );
    assert_eq!(why(&plan, "a"), reasons::IDENTITY_RESERVED);
    assert_eq!(why(&plan, "b"), reasons::IDENTITY_RESERVED);
    assert!(is_granted(&plan, "c"));
}

// ---- who is let in

#[test]
fn the_older_of_two_rules_wins_and_the_name_decides_within_a_second() {
    let plan = nfs([
        rule("a", "10.0.0.1").read_only(),
        rule("b", "10.0.0.1/32").aged(1),
        rule("d", "10.0.0.2"),
        rule("c", "10.0.0.2").read_only(),
    ]);
    assert!(is_granted(&plan, "b") && is_granted(&plan, "c"));
    assert_eq!(why(&plan, "a"), reasons::DUPLICATE_RULE);
    assert_eq!(why(&plan, "d"), reasons::DUPLICATE_RULE);
    assert_eq!(plan.access.len(), 2);
}

#[test]
fn a_rule_that_is_refused_or_leaving_takes_nobodys_place() {
    let plan = nfs([
        rule("going", "10.0.0.1").aged(9).leaving(),
        rule("stays", "10.0.0.1"),
    ]);
    assert_eq!(plan.verdicts["going"], Verdict::Leaving);
    assert!(is_granted(&plan, "stays"));

    let mut blocked = cephx_rule("blocked", Some("alice")).aged(9).view();
    blocked.credentials = Credentials::NotOurs;
    let plan = judged(
        Protocol::CephFS,
        &[blocked, cephx_rule("good", Some("alice")).view()],
    );
    assert_eq!(why(&plan, "blocked"), reasons::SECRET_NOT_OURS);
    assert!(is_granted(&plan, "good"));
}

#[test]
fn what_the_backend_refused_is_not_asked_for_again_in_the_pass() {
    let refusal = failure(Scope::Object, Class::Conflict, reasons::IDENTITY_NOT_AVAILABLE);
    let refused = [(cephx("alice"), refusal)].into();
    let rules = [
        cephx_rule("r", Some("alice")).aged(1).view(),
        cephx_rule("again", Some("alice")).view(),
        cephx_rule("s", Some("bob")).view(),
    ];
    let plan = judged_with(Protocol::CephFS, &rules, &refused);
    assert_eq!(plan.access, [may_write(cephx("bob"))]);
    assert_eq!(why(&plan, "r"), reasons::IDENTITY_NOT_AVAILABLE);
    assert_eq!(why(&plan, "again"), reasons::DUPLICATE_RULE);
}

#[test]
fn the_access_type_has_to_fit_the_protocol() {
    assert_eq!(
        why(&nfs([cephx_rule("r", Some("alice"))]), "r"),
        reasons::ACCESS_TYPE_NOT_SUPPORTED
    );
    assert_eq!(
        why(&cephfs([rule("r", "10.0.0.1")]), "r"),
        reasons::ACCESS_TYPE_NOT_SUPPORTED
    );
}

#[test]
fn reserved_identities_and_the_operators_own_are_refused() {
    for identity in RESERVED_IDENTITIES.into_iter().chain(["shoal-operator"]) {
        assert_eq!(
            why(&cephfs([cephx_rule("r", Some(identity))]), "r"),
            reasons::IDENTITY_RESERVED
        );
    }
    // On a backend that speaks as somebody else that name is free.
    let refused = HashMap::new();
    let terms = Terms {
        protocol: Protocol::CephFS,
        squash: Squash::None,
        own_identity: None,
        refused: &refused,
    };
    assert!(is_granted(
        &plan(terms, &[cephx_rule("r", Some("shoal-operator")).view()]),
        "r"
    ));
}

#[test]
fn a_cephx_rule_without_an_identity_gets_one_made_from_its_uid() {
    let plan = cephfs([cephx_rule("r", None)]);
    assert_eq!(plan.access, [may_write(cephx("shoal-uid-r"))]);
}

#[test]
fn nonsense_is_refused_without_echoing_a_secret() {
    for text in ["host", "10.0.0.5/24", "10.0.0.0/33", "::ffff:10.0.0.1", ""] {
        assert_eq!(
            why(&nfs([rule("r", text)]), "r"),
            reasons::INVALID_ACCESS_TO,
            "{text}"
        );
    }
    for text in ["a.b", "a b", "ä", "client.x", "-a", ""] {
        assert_eq!(
            why(&cephfs([cephx_rule("r", Some(text))]), "r"),
            reasons::INVALID_ACCESS_TO,
            "{text}"
        );
    }
    let mut view = rule("r", "").named_in("s").view();
    view.secret_value = Some(Ok("hush hush".into()));
    match &judged(Protocol::NFS, &[view]).verdicts["r"] {
        Verdict::Refused(failure) => {
            assert!(!failure.message.contains("hush"), "{failure}");
            assert!(failure.message.contains("accessToSecretRef"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_may_be_named_in_a_secret() {
    let mut view = rule("r", "").named_in("s").view();
    assert!(view.needs_reading());
    assert_eq!(
        why(&judged(Protocol::NFS, &[view.clone()]), "r"),
        reasons::SECRET_NOT_FOUND
    );
    view.secret_value = Some(Ok("10.0.0.1\n".into()));
    assert!(is_granted(&judged(Protocol::NFS, &[view.clone()]), "r"));
    view.secret_value = Some(Err(failure(
        Scope::Object,
        Class::Waiting,
        reasons::SECRET_NOT_LABELLED,
    )));
    assert_eq!(
        why(&judged(Protocol::NFS, &[view]), "r"),
        reasons::SECRET_NOT_LABELLED
    );
}

#[test]
fn squash_is_the_rules_or_else_the_types_and_nothing_to_cephx() {
    let mut own = rule("own", "10.0.0.1");
    own.spec.squash = Some(Squash::All);
    let plan = nfs([own, rule("types", "10.0.0.2")]);
    let squash: BTreeMap<_, _> = plan
        .access
        .iter()
        .map(|g| (g.client.to_string(), g.squash))
        .collect();
    assert_eq!(
        (squash["10.0.0.1"], squash["10.0.0.2"]),
        (Squash::All, Squash::Root)
    );
    assert_eq!(
        cephfs([cephx_rule("r", Some("alice"))]).access[0].squash,
        Squash::None
    );
}

#[test]
fn twenty_rules_stand_longest_prefix_first_whatever_their_order() {
    let rules: Vec<_> = (8..=27)
        .map(|n| rule(&format!("r{n}"), &format!("10.0.0.0/{n}")))
        .collect();
    let order = |plan: Plan| -> Vec<_> { plan.access.iter().map(|g| g.client.to_string()).collect() };
    let expected: Vec<_> = (8..=27).rev().map(|n| format!("10.0.0.0/{n}")).collect();
    assert_eq!(order(nfs(rules.clone())), expected);
    assert_eq!(order(nfs(rules.into_iter().rev())), expected);
}

#[test]
fn a_summary_counts_those_that_stay() {
    let plan = nfs([
        rule("good", "10.0.0.1"),
        rule("bad", "host"),
        rule("going", "10.0.0.2").leaving(),
    ]);
    let summary = summary(&plan);
    assert_eq!((summary.total, summary.applied, summary.failed), (2, 1, 1));
}

// ---- what each is told

fn grant_of(view: &RuleView) -> Plan {
    judged(Protocol::CephFS, std::slice::from_ref(view))
}

#[test]
fn a_rule_in_force_is_told_its_level_and_where_its_key_is() {
    let view = cephx_rule("r", Some("alice")).read_only().held().view();
    let keys = [("alice".to_owned(), Key::new("k"))].into();
    let report = reports(UID, std::slice::from_ref(&view), &grant_of(&view), &keys, now()).remove(0);
    let status = report.status.unwrap();
    assert_eq!(status.phase, Some(AccessPhase::Active));
    assert_eq!(status.applied_level, Some(AccessLevel::ReadOnly));
    assert_eq!(status.share_uid.as_deref(), Some(UID));
    assert_eq!(status.credentials_secret_ref.unwrap().name, "r-cephx");
    assert_eq!(report.secret.unwrap().name, "r-cephx");
    assert!(!report.release);
}

#[test]
fn a_rule_may_name_its_secret() {
    let mut rule = cephx_rule("r", Some("alice"));
    rule.spec.credentials_secret_name = Some("mine".into());
    assert_eq!(rule.view().secret_name(), "mine");
}

#[test]
fn a_rule_with_the_longest_name_has_a_secret_too() {
    let name = |length| cephx_rule(&"r".repeat(length), None).view().secret_name();
    assert!(name(247).ends_with("-cephx"));
    assert!(name(253).starts_with("shoal-uid-") && name(248).starts_with("shoal-uid-"));
}

#[test]
fn the_same_verdict_again_is_not_written() {
    let mut view = cephx_rule("r", Some("alice")).held().view();
    let told = |view: &RuleView, at| {
        reports(
            UID,
            std::slice::from_ref(view),
            &grant_of(view),
            &BTreeMap::new(),
            at,
        )
    };
    view.rule.status = told(&view, now()).remove(0).status;
    assert!(view.is_settled(UID));
    assert_eq!(told(&view, "2027-01-01T00:00:00Z".parse().unwrap()), []);
    // On another share of the same name it is news.
    assert!(!view.is_settled("uid-of-the-next"));
}

#[test]
fn a_refused_rule_is_told_why_and_is_settled() {
    let mut view = cephx_rule("r", Some("admin")).held().view();
    let report = reports(
        UID,
        std::slice::from_ref(&view),
        &grant_of(&view),
        &BTreeMap::new(),
        now(),
    )
    .remove(0);
    let status = report.status.unwrap();
    assert_eq!(status.phase, Some(AccessPhase::Error));
    assert_eq!(status.applied_level, None);
    assert_eq!(why_not_ready(&status.conditions), reasons::IDENTITY_RESERVED);
    assert!(says(&status.conditions, types::STALLED));
    view.rule.status = Some(status);
    assert!(view.is_settled(UID));
}

#[test]
fn a_leaving_rule_is_let_go_once() {
    let view = cephx_rule("r", Some("alice")).held().leaving().view();
    let report = reports(
        UID,
        std::slice::from_ref(&view),
        &grant_of(&view),
        &BTreeMap::new(),
        now(),
    )
    .remove(0);
    assert!(report.release && report.status.is_none() && report.secret.is_none());
    let view = cephx_rule("r", Some("alice")).leaving().view();
    assert_eq!(
        reports(
            UID,
            std::slice::from_ref(&view),
            &grant_of(&view),
            &BTreeMap::new(),
            now()
        ),
        []
    );
}

#[test]
fn only_an_answer_to_this_very_spec_settles_a_rule() {
    let settled = |rule: ShareAccessRule| rule.view().is_settled(UID);
    assert!(settled(rule("r", "10.0.0.1").told(AccessPhase::Active)));
    assert!(settled(rule("r", "10.0.0.1").told(AccessPhase::Error)));
    for phase in [
        AccessPhase::QueuedToApply,
        AccessPhase::QueuedToUpdate,
        AccessPhase::Denying,
    ] {
        assert!(!settled(rule("r", "10.0.0.1").told(phase)));
    }
    assert!(!settled(rule("r", "10.0.0.1")));
    assert!(!settled(rule("r", "10.0.0.1").told(AccessPhase::Active).edited()));
    assert!(!settled(
        rule("r", "10.0.0.1").leaving().told(AccessPhase::Active)
    ));
}

#[test]
fn a_rule_that_waits_keeps_what_is_in_force() {
    let why = failure(Scope::Backend, Class::Waiting, reasons::BACKEND_NOT_READY);
    let status = |rule: ShareAccessRule, uid: &str| {
        waiting_reports(uid, &[rule.view()], &why, false, now())
            .remove(0)
            .status
            .unwrap()
    };
    let new = status(rule("r", "10.0.0.1"), UID);
    assert_eq!(
        (new.phase, new.applied_level),
        (Some(AccessPhase::QueuedToApply), None)
    );
    assert_eq!(why_not_ready(&new.conditions), reasons::SHARE_NOT_READY);

    let active = rule("r", "10.0.0.1").told(AccessPhase::Active);
    let changed = status(active.clone().edited().read_only(), UID);
    assert_eq!(changed.phase, Some(AccessPhase::QueuedToUpdate));
    assert_eq!(changed.applied_level, Some(AccessLevel::ReadWrite));

    let leaving = status(active.clone().leaving(), UID);
    assert_eq!(leaving.phase, Some(AccessPhase::Denying));

    // What was in force on a share that had the name before is not in force on this one.
    let next = status(active.clone(), "uid-of-the-next");
    assert_eq!(
        (next.phase, next.applied_level),
        (Some(AccessPhase::QueuedToApply), None)
    );

    assert_eq!(
        waiting_reports(UID, &[active.view()], &why, false, now()),
        [],
        "settled: nothing to say"
    );
    let mut told = rule("r", "10.0.0.1");
    told.status = Some(new);
    assert_eq!(
        waiting_reports(UID, &[told.view()], &why, false, now()),
        [],
        "told already"
    );
}

#[test]
fn a_leaving_rule_waits_for_no_share_where_nobody_is_let_in() {
    let why = failure(Scope::Object, Class::Stalled, reasons::VOLUME_MISSING);
    let rules = [
        rule("going", "10.0.0.1").held().leaving().view(),
        rule("stays", "10.0.0.2").held().view(),
    ];
    let told = waiting_reports(UID, &rules, &why, true, now());
    assert_eq!(
        told.iter()
            .map(|r| (r.release, r.status.is_some()))
            .collect::<Vec<_>>(),
        [(true, false), (false, true)]
    );
}

#[test]
fn a_report_prints_no_key() {
    let view = cephx_rule("r", Some("alice")).held().view();
    let keys = [("alice".to_owned(), Key::new("AQkey"))].into();
    let printed = format!(
        "{:?}",
        reports(UID, std::slice::from_ref(&view), &grant_of(&view), &keys, now())
    );
    assert!(printed.contains("******") && !printed.contains("AQkey"));
}

// ---- a rule's own pass

fn alone(rule: ShareAccessRule) -> Observed {
    Observed {
        rule,
        share_exists: false,
        absence_confirmed: false,
        custody_ended: false,
        locks: Vec::new(),
    }
}

#[test]
fn while_its_share_exists_a_rule_is_its_shares_business() {
    for rule in [rule("r", "10.0.0.1"), rule("r", "10.0.0.1").held().leaving()] {
        let mut observed = alone(rule);
        observed.share_exists = true;
        let decision = decide(&observed, now());
        assert_eq!((decision.step, decision.next), (None, Next::Await));
        assert_eq!(decision.status, observed.rule.status.unwrap_or_default());
    }
}

#[test]
fn a_rule_without_a_share_waits_and_says_so_once() {
    let mut observed = alone(rule("r", "10.0.0.1").told(AccessPhase::Active));
    // Not before that is certain: the caches hear of share and rule in any order.
    assert_eq!(
        decide(&observed, now()).step,
        Some(Step::Do(Effect::ConfirmAbsence))
    );
    observed.absence_confirmed = true;
    let status = decide(&observed, now()).status;
    assert_eq!(status.phase, Some(AccessPhase::QueuedToApply));
    assert_eq!((status.applied_level, status.share_uid.clone()), (None, None));
    assert_eq!(why_not_ready(&status.conditions), reasons::SHARE_NOT_FOUND);
    observed.rule.status = Some(status.clone());
    observed.absence_confirmed = false;
    let later = decide(&observed, "2027-01-01T00:00:00Z".parse().unwrap());
    assert_eq!((later.step, later.status), (None, status));
}

#[test]
fn a_rule_without_a_share_is_let_go_once_the_absence_is_certain() {
    let mut observed = alone(rule("r", "10.0.0.1").held().leaving());
    assert_eq!(
        decide(&observed, now()).step,
        Some(Step::Do(Effect::ConfirmAbsence))
    );
    observed.absence_confirmed = true;
    assert_eq!(decide(&observed, now()).step, Some(Step::RemoveFinalizer));
    observed.rule = observed.rule.not_held();
    assert_eq!(decide(&observed, now()).step, None);
}

#[test]
fn a_grant_names_its_access_type() {
    let of = |grant: Grant| grant.client.access_type();
    assert_eq!(of(may_read(ip("10.0.0.1"))), shoal_crds::AccessType::IP);
    assert_eq!(of(may_read(cephx("alice"))), shoal_crds::AccessType::CephX);
}
