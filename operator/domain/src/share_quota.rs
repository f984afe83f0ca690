//! Decisions about what the shares of a namespace may take.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shoal_crds::{
    QuotaLimits, QuotaPhase, QuotaUse, ShareQuota, ShareQuotaStatus, ShareTypeUse, Size, condition::reasons,
};

use crate::{Class, Decision, Failure, Next, Scope, condition::Conditions, share_type::Never};

/// How often what is used is told: it is for people, and moves with every share.
const TELL: std::time::Duration = std::time::Duration::from_secs(30);

/// What shares are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many they are.
    pub shares: u64,
    /// How large they are together: a few of the largest size are more than 64 bits hold.
    pub bytes: u128,
}

/// What the shares of a namespace are charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of them.
    pub total: Amount,
    /// Those of each type.
    pub by_type: BTreeMap<String, Amount>,
}

/// What a share asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Its type.
    pub share_type_name: &'a str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is charged already, and asks for more.
    pub grows: bool,
}

/// What a pass over a ShareQuota sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The quota.
    pub quota: ShareQuota,
    /// What the shares of its namespace are charged.
    pub usage: Usage,
}

/// Whether a share of the namespace may be charged what it asks for. `used` is what the others are charged.
pub fn admit(quotas: &[ShareQuota], used: &Usage, asked: &Asked<'_>) -> Result<(), Failure> {
    quotas
        .iter()
        .find_map(|quota| refusal(quota, used, asked))
        .map_or(Ok(()), Err)
}

fn refusal(quota: &ShareQuota, used: &Usage, asked: &Asked<'_>) -> Option<Failure> {
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let of_type = |name: &str| used.by_type.get(name).copied().unwrap_or_default();
    let of_its_type = quota
        .spec
        .per_share_type
        .iter()
        .filter(|limits| limits.share_type_name == asked.share_type_name)
        .map(|limits| {
            let of = format!(" of type '{}'", asked.share_type_name);
            (limits.hard, of_type(asked.share_type_name), of)
        });
    let all = (quota.spec.hard, used.total, String::new());
    let why = std::iter::once(all)
        .chain(of_its_type)
        .find_map(|(limits, used, of)| passed(limits, used, &of, asked))?;
    Some(Failure {
        class: Class::Waiting,
        scope: Scope::Object,
        reason: reasons::QUOTA_EXCEEDED,
        message: format!("ShareQuota '{name}' {why}"),
    })
}

// Messages are without what is used, which moves all the time: each new message would be a write.

/// The limit that would be passed, and what helps.
fn passed(limits: QuotaLimits, used: Amount, of: &str, asked: &Asked<'_>) -> Option<String> {
    let shares = limits.shares.map(|most| u64::try_from(most).unwrap_or(0));
    if let Some(most) = limits
        .per_share_capacity
        .filter(|most| asked.bytes > most.bytes())
    {
        return Some(format!(
            "lets one share{of} have {most} (perShareCapacity), and spec.size is more; ask for less, or an admin for more"
        ));
    }
    if let Some(most) = shares.filter(|most| !asked.grows && used.shares >= *most) {
        return Some(format!(
            "lets the namespace have {most} shares{of} (shares), and they are there; delete one, or ask an admin for more"
        ));
    }
    let most = limits
        .capacity
        .filter(|most| used.bytes + u128::from(asked.bytes) > most.bytes().into())?;
    Some(format!(
        "lets the shares{of} of the namespace have {most} together (capacity), and this is too large beside the others; ask \
         for less, delete some, or ask an admin for more"
    ))
}

/// Says what is used.
pub fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareQuotaStatus, Never> {
    let quota = &observed.quota;
    let before = quota.status.clone().unwrap_or_default();
    let generation = quota.metadata.generation.unwrap_or_default();
    let usage = &observed.usage;
    let per_type: Vec<_> = quota
        .spec
        .per_share_type
        .iter()
        .map(|limits| {
            let used = usage.by_type.get(&limits.share_type_name).copied();
            (limits, used.unwrap_or_default())
        })
        .collect();
    let is_exceeded = is_above(quota.spec.hard, usage.total)
        || per_type.iter().any(|(limits, used)| is_above(limits.hard, *used));
    let status = ShareQuotaStatus {
        observed_generation: Some(generation),
        phase: Some(if is_exceeded {
            QuotaPhase::Exceeded
        } else {
            QuotaPhase::Active
        }),
        conditions: Conditions::new(&before.conditions, generation, now)
            .ready("it is in force")
            .build(),
        used: Some(told(usage.total)),
        used_per_share_type: per_type
            .into_iter()
            .map(|(limits, used)| ShareTypeUse {
                share_type_name: limits.share_type_name.clone(),
                used: told(used),
            })
            .collect(),
    };
    Decision::done(status, Next::After(TELL))
}

fn is_above(limits: QuotaLimits, used: Amount) -> bool {
    let shares = limits.shares.and_then(|most| u64::try_from(most).ok());
    shares.is_some_and(|most| used.shares > most)
        || limits
            .capacity
            .is_some_and(|most| used.bytes > most.bytes().into())
}

fn told(used: Amount) -> QuotaUse {
    let bytes = u64::try_from(used.bytes.min(Size::MAX.bytes().into()));
    QuotaUse {
        shares: i64::try_from(used.shares).unwrap_or(i64::MAX),
        capacity: bytes.ok().and_then(Size::from_bytes),
    }
}
