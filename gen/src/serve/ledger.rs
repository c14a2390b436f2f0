//! Who had its document: decided from what happened, and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cluster::Mac;

/// What happened to a machine's document; a line of the journal each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// The machine's network card.
    pub mac: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// It is being sent to somebody.
    Begun {
        /// To whom.
        peer: IpAddr,
    },
    /// It was sent, to its end.
    Sent,
    /// The operator lets the machine have it once more.
    Allowed,
}

/// For how long documents are given.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Since when.
    pub since: OffsetDateTime,
    /// So long after that, or after the operator allowed it.
    pub window: Duration,
    /// So long after it was sent the same machine may ask again.
    pub again: Duration,
}

/// Whether a document is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// For the first time.
    Give,
    /// To whom it is given already: nothing new happens.
    GiveAgain,
    /// Not at all.
    Refuse(Refusal),
}

/// Why a document is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody had it.
    Sent {
        /// Who.
        to: IpAddr,
        /// When.
        at: OffsetDateTime,
    },
    /// Somebody else began to fetch it, and has not ended.
    Begun {
        /// Who.
        by: IpAddr,
        /// When.
        at: OffsetDateTime,
    },
    /// The time is up.
    Late,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { to, at } => write!(f, "sent to {to} at {}", shown(*at)),
            Self::Begun { by, at } => write!(f, "begun by {by} at {}, and not ended", shown(*at)),
            Self::Late => f.write_str("the time for it is up"),
        }
    }
}

mod rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serializer, de, ser};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub fn serialize<S: Serializer>(at: &OffsetDateTime, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&at.format(&Rfc3339).map_err(ser::Error::custom)?)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<OffsetDateTime, D::Error> {
        let text = String::deserialize(d)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)
    }
}

/// A time, to the second.
pub fn shown(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    by: IpAddr,
    at: OffsetDateTime,
    sent: Option<OffsetDateTime>,
}

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    begun: HashMap<Mac, Begun>,
    allowed: HashMap<Mac, OffsetDateTime>,
}

impl Ledger {
    /// Whether `peer`, who says to be this machine, gets its document.
    pub fn judge(&self, mac: Mac, peer: IpAddr, now: OffsetDateTime, terms: &Terms) -> Verdict {
        let allowed = self.allowed.get(&mac).copied();
        let since = allowed.map_or(terms.since, |at| at.max(terms.since));
        let late = now > since + terms.window;
        let Some(begun) = self.begun.get(&mac) else {
            return if late {
                Verdict::Refuse(Refusal::Late)
            } else {
                Verdict::Give
            };
        };
        match begun.sent {
            Some(at) if begun.by != peer || now > at + terms.again => {
                Verdict::Refuse(Refusal::Sent { to: begun.by, at })
            }
            None if begun.by != peer => Verdict::Refuse(Refusal::Begun {
                by: begun.by,
                at: begun.at,
            }),
            None if late => Verdict::Refuse(Refusal::Late),
            _ => Verdict::GiveAgain,
        }
    }

    /// Takes note of what happened.
    pub fn note(&mut self, mac: Mac, at: OffsetDateTime, what: &What) {
        match what {
            What::Begun { peer } => {
                let begun = Begun {
                    by: *peer,
                    at,
                    sent: None,
                };
                self.begun.entry(mac).or_insert(begun);
            }
            What::Sent => {
                if let Some(begun) = self.begun.get_mut(&mac) {
                    begun.sent.get_or_insert(at);
                }
            }
            What::Allowed => {
                self.begun.remove(&mac);
                self.allowed.insert(mac, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Duration = Duration::from_secs(30);

    struct Case {
        ledger: Ledger,
        mac: Mac,
        terms: Terms,
    }

    fn case() -> Case {
        Case {
            ledger: Ledger::default(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            terms: Terms {
                since: at(0),
                window: Duration::from_secs(3600),
                again: AGAIN,
            },
        }
    }

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + second).unwrap()
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    impl Case {
        fn asks(&self, who: u8, second: i64) -> Verdict {
            let (peer, now) = (peer(who), at(second));
            self.ledger.judge(self.mac, peer, now, &self.terms)
        }

        fn note(&mut self, second: i64, what: What) {
            self.ledger.note(self.mac, at(second), &what);
        }
    }

    #[test]
    fn a_document_is_given_once() {
        let mut case = case();
        assert_eq!(case.asks(1, 10), Verdict::Give);
        case.note(10, What::Begun { peer: peer(1) });
        // Who was cut off asks again, nobody else does.
        assert_eq!(case.asks(1, 500), Verdict::GiveAgain);
        let begun = Refusal::Begun {
            by: peer(1),
            at: at(10),
        };
        assert_eq!(case.asks(2, 11), Verdict::Refuse(begun));
        case.note(12, What::Sent);
        assert_eq!(case.asks(1, 42), Verdict::GiveAgain);
        let sent = Refusal::Sent {
            to: peer(1),
            at: at(12),
        };
        assert_eq!(case.asks(1, 43), Verdict::Refuse(sent.clone()));
        assert_eq!(case.asks(2, 13), Verdict::Refuse(sent.clone()));
        // Asking again does not make the time longer.
        case.note(40, What::Begun { peer: peer(1) });
        case.note(41, What::Sent);
        assert_eq!(case.asks(1, 43), Verdict::Refuse(sent));
    }

    #[test]
    fn the_time_for_it_is_limited() {
        let mut case = case();
        assert_eq!(case.asks(1, 3600), Verdict::Give);
        assert_eq!(case.asks(1, 3601), Verdict::Refuse(Refusal::Late));
        case.note(3500, What::Begun { peer: peer(1) });
        assert_eq!(case.asks(1, 3601), Verdict::Refuse(Refusal::Late));
    }

    #[test]
    fn the_operator_may_allow_it_once_more() {
        let mut case = case();
        case.note(10, What::Begun { peer: peer(1) });
        case.note(11, What::Sent);
        case.note(5000, What::Allowed);
        // To whoever is first again, for as long as at first.
        assert_eq!(case.asks(2, 5000 + 3600), Verdict::Give);
        assert_eq!(case.asks(2, 5001 + 3600), Verdict::Refuse(Refusal::Late));
        // Others gain nothing by it.
        let other: Mac = "52:54:00:00:00:02".parse().unwrap();
        let verdict = case.ledger.judge(other, peer(2), at(5001), &case.terms);
        assert_eq!(verdict, Verdict::Refuse(Refusal::Late));
    }

    #[test]
    fn events_are_read_as_they_were_written() {
        let whats = [What::Begun { peer: peer(1) }, What::Sent, What::Allowed];
        for what in whats {
            let event = Event {
                at: at(1),
                mac: "52:54:00:00:00:01".to_owned(),
                what,
            };
            let line = serde_json::to_string(&event).unwrap();
            assert!(line.contains("\"event\":\""), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
