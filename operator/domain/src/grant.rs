//! Who is let in: what is asked of a backend, what it has, and what it answered.

use std::{cmp::Ordering, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use shoal_crds::{AccessLevel, AccessType, Squash};

use crate::Failure;

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// An address or network; an address is a network of one.
    Ip(IpNet),
    /// A CephX identity, without `client.`.
    CephX(String),
}

impl Client {
    /// Reads what a rule of this type names. The error says what is wrong, without echoing the text, which may come from
    /// a Secret.
    pub fn parse(access_type: AccessType, text: &str) -> Result<Self, &'static str> {
        match access_type {
            AccessType::IP => parse_network(text).map(Self::Ip),
            AccessType::CephX => {
                let mut bytes = text.bytes();
                let well_formed = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
                    && bytes.all(|b| b.is_ascii_alphanumeric() || b"_@+=:-".contains(&b))
                    && text.len() <= 128;
                if well_formed {
                    Ok(Self::CephX(text.to_owned()))
                } else {
                    Err(
                        "a CephX identity is made of at most 128 ASCII letters, digits and _ @ + = : - and begins with a letter or digit",
                    )
                }
            }
        }
    }

    /// The type of rule that names such a client.
    pub fn access_type(&self) -> AccessType {
        match self {
            Self::Ip(_) => AccessType::IP,
            Self::CephX(_) => AccessType::CephX,
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let net = match IpNet::from_str(text) {
        Ok(net) => net,
        Err(_) => IpNet::from(IpAddr::from_str(text).map_err(|_| "not an IPv4 or IPv6 address or network")?),
    };
    match net {
        // Ganesha sees such a client as IPv4, so a rule written so would let nobody in.
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err("an IPv4 address must be written as IPv4")
        }
        _ if net.trunc() != net => Err("the network has host bits set; write its first address"),
        _ => Ok(net),
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Ip(net) => write!(f, "{net}"),
            Self::CephX(identity) => f.write_str(identity),
        }
    }
}

/// A client that is let in, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Who.
    pub client: Client,
    /// What it may do.
    pub level: AccessLevel,
    /// Which of its users lose their identity; means nothing to CephX.
    pub squash: Squash,
}

/// The set of clients let in, in the order in which they are matched.
pub type Access = Vec<Grant>;

/// Puts grants into the order in which they have to stand: Ganesha takes the first client block that matches, so the
/// longest prefix goes first, and at equal length read-write before read-only. The rest makes the order total.
pub fn sort(access: &mut Access) {
    access.sort_by(|a, b| match (&a.client, &b.client) {
        (Client::Ip(x), Client::Ip(y)) => hosts_in(x)
            .cmp(&hosts_in(y))
            .then_with(|| a.level.cmp(&b.level))
            .then_with(|| x.cmp(y)),
        (Client::CephX(x), Client::CephX(y)) => x.cmp(y),
        (Client::Ip(_), Client::CephX(_)) => Ordering::Less,
        (Client::CephX(_), Client::Ip(_)) => Ordering::Greater,
    });
}

/// Bits that are free in the network: fewer is more specific, for both families alike.
fn hosts_in(net: &IpNet) -> u8 {
    net.max_prefix_len() - net.prefix_len()
}

/// A CephX key. Prints as `******`.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Takes a key over.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key itself: for the Secret that holds it, and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

/// What a backend did about one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Who.
    pub client: Client,
    /// In force, with the client's key if it has one; or why not.
    pub outcome: Result<Option<Key>, Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str, level: AccessLevel) -> Grant {
        Grant {
            client: Client::parse(AccessType::IP, text).unwrap(),
            level,
            squash: Squash::None,
        }
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(
            Client::parse(AccessType::IP, "10.0.0.5"),
            Client::parse(AccessType::IP, "10.0.0.5/32")
        );
        assert_eq!(
            Client::parse(AccessType::IP, "fd00::1").unwrap().to_string(),
            "fd00::1"
        );
        assert_eq!(
            Client::parse(AccessType::IP, "10.0.0.0/24").unwrap().to_string(),
            "10.0.0.0/24"
        );
    }

    #[test]
    fn refuses_what_is_not_a_client() {
        for text in [
            "",
            "10.0.0.5/24",
            "10.0.0.0/33",
            "::ffff:10.0.0.1",
            "host",
            "10.0.0.0/-1",
            "10.0.0",
        ] {
            assert!(Client::parse(AccessType::IP, text).is_err(), "{text}");
        }
        for text in ["", "a.b", "a b", "ä", "client/x", "$x", "-x"] {
            assert!(Client::parse(AccessType::CephX, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_most_specific_client_stands_first() {
        let mut access = vec![
            ip("0.0.0.0/0", AccessLevel::ReadWrite),
            ip("10.0.0.0/24", AccessLevel::ReadOnly),
            ip("10.0.1.0/24", AccessLevel::ReadWrite),
            ip("10.0.0.5", AccessLevel::ReadWrite),
            ip("fd00::/64", AccessLevel::ReadOnly),
            ip("fd00::1", AccessLevel::ReadOnly),
        ];
        sort(&mut access);
        let order: Vec<_> = access.iter().map(|g| g.client.to_string()).collect();
        assert_eq!(
            order,
            [
                "10.0.0.5",
                "fd00::1",
                "10.0.1.0/24",
                "10.0.0.0/24",
                "0.0.0.0/0",
                "fd00::/64"
            ]
        );
    }

    #[test]
    fn a_key_never_prints() {
        assert_eq!(format!("{:?}", Key::new("AQsecret")), "******");
    }
}
