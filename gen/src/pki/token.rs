//! Bootstrap tokens: how machines that have no certificate yet get one. Kept
//! as certificates are, so that the same input gives the same bytes until a
//! token is near its end.
//! Source: Kubernetes documentation, "Authenticating with Bootstrap Tokens".

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use units::types::Role;
use zeroize::Zeroizing;

use super::{Pki, issue};
use crate::cluster::{Cluster, Machine};
use crate::secret::Secret;

/// What a token is made of.
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// The letters of the part that names it.
const ID: usize = 6;
/// The letters of the part that proves it.
const PROOF: usize = 16;

/// A bootstrap token.
#[derive(Debug, Clone)]
pub struct Token {
    /// Whose it is: a pool, or the document of all nodes.
    pub pool: String,
    /// The part that names it; it is no secret.
    pub id: String,
    /// The part that proves it.
    pub proof: Secret,
    /// Until when it is good.
    pub expires: OffsetDateTime,
}

impl Token {
    /// Both parts, as a machine shows them: `ID.PROOF`.
    pub fn whole(&self) -> Secret {
        let mut whole = Vec::with_capacity(ID + 1 + PROOF);
        whole.extend_from_slice(self.id.as_bytes());
        whole.push(b'.');
        whole.extend_from_slice(self.proof.expose());
        Secret::new(whole)
    }

    /// Until when it is good, RFC 3339 in UTC.
    pub fn expires(&self) -> String {
        rfc3339(self.expires)
    }
}

/// A file `NAME.token`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    token: String,
    created: String,
    expires: String,
}

/// A file `NAME.token` that was understood.
pub(super) struct Life {
    id: String,
    proof: Secret,
    pub created: OffsetDateTime,
    pub expires: OffsetDateTime,
}

impl Life {
    /// Reads a file; errors say nothing of its text.
    pub fn read(text: &str) -> Result<Self> {
        let wrong = || anyhow!("is not a token that kgen made; remove it for a new one");
        let mut kept: Kept = serde_yaml::from_str(text).map_err(|_| wrong())?;
        let whole = Zeroizing::new(std::mem::take(&mut kept.token));
        let (id, proof) = whole.split_once('.').ok_or_else(wrong)?;
        let good =
            |part: &str, length| part.len() == length && part.bytes().all(|b| LETTERS.contains(&b));
        let when = |text: &str| OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong());
        if !good(id, ID) || !good(proof, PROOF) {
            return Err(wrong());
        }
        Ok(Self {
            id: id.to_owned(),
            proof: Secret::from(proof.to_owned()),
            created: when(&kept.created)?,
            expires: when(&kept.expires)?,
        })
    }

    /// Whom the API server takes its bearer for.
    pub fn user(&self) -> String {
        format!("system:bootstrap:{}", self.id)
    }

    fn write(&self) -> Secret {
        let proof = self.proof.expose_text().unwrap_or_default();
        Secret::from(format!(
            "token: {}.{proof}\ncreated: {}\nexpires: {}\n",
            self.id,
            rfc3339(self.created),
            rfc3339(self.expires)
        ))
    }

    /// Why another has to be made, if one has to: a machine has to have the
    /// time to boot with it.
    fn unfit(&self, ttl: Duration, now: OffsetDateTime) -> Option<String> {
        let life = self.expires - self.created;
        if life != ttl {
            return Some("tokenTTL has changed".to_owned());
        }
        if now >= self.expires {
            return Some(format!("it had expired on {}", rfc3339(self.expires)));
        }
        if self.is_due(now) {
            return Some(format!("it expires on {}", rfc3339(self.expires)));
        }
        None
    }

    /// Whether less than a quarter of its life is left.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        now >= self.expires - (self.expires - self.created) / 4
    }
}

impl Pki {
    /// The tokens that a machine's document has: of a shared document its own;
    /// of a master all, since masters make them known to the cluster.
    pub(super) fn tokens(&mut self, cluster: &Cluster, machine: &Machine) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        if machine.role == Role::Master {
            for pool in &cluster.pools {
                tokens.extend(self.token(pool)?);
            }
        } else {
            tokens.extend(self.token(machine)?);
        }
        Ok(tokens)
    }

    /// Every token of the cluster.
    pub fn all_tokens(&mut self, cluster: &Cluster) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        for pool in &cluster.pools {
            tokens.extend(self.token(pool)?);
        }
        self.check()?;
        Ok(tokens)
    }

    /// A token, read or made; none where machines come without one, or with a
    /// finding.
    pub(super) fn token(&mut self, pool: &Machine) -> Result<Option<Token>> {
        let (Some(shared), Some(stem)) = (&pool.shared, pool.token()) else {
            return Ok(None);
        };
        if let Some(token) = self.tokens.get(&stem) {
            return Ok(Some(token.clone()));
        }
        let file = format!("{stem}.token");
        let mut reason = None;
        let mut life = None;
        if let Some(secret) = self.secret(&file)? {
            let text = secret.expose_text().unwrap_or_default();
            let Some(read) = self.look(&file, Life::read(text)) else {
                return Ok(None);
            };
            let asked = self.renewing.contains(&stem).then(|| "as asked".to_owned());
            reason = read.unfit(shared.token_ttl, self.now).or(asked);
            life = reason.is_none().then_some(read);
        }
        let life = match life {
            Some(life) => life,
            None => {
                let life = new(shared.token_ttl, self.now)?;
                self.store.put_secret(&file, &life.write())?;
                self.told(&file, reason.as_deref(), &life);
                life
            }
        };
        let token = Token {
            pool: pool.name.to_string(),
            id: life.id,
            proof: life.proof,
            expires: life.expires,
        };
        self.tokens.insert(stem, token.clone());
        Ok(Some(token))
    }

    fn told(&mut self, file: &str, why: Option<&str>, life: &Life) {
        let (shown, expires) = (self.shown(file), rfc3339(life.expires));
        self.notes.push(match why {
            None => format!("made the bootstrap token {shown}, good until {expires}"),
            Some(why) => format!(
                "made {shown} anew: {why}; the new one is good until {expires}, and a running \
                 cluster has to be told: kgen render -o OUT; kubectl apply -f OUT/pools"
            ),
        });
    }
}

fn new(ttl: Duration, now: OffsetDateTime) -> Result<Life> {
    // Whole seconds, as they are written.
    let now = OffsetDateTime::from_unix_timestamp(now.unix_timestamp())?;
    let letters = letters()?;
    let (id, proof) = letters.split_at(ID);
    Ok(Life {
        id: id.to_owned(),
        proof: Secret::from(proof.to_owned()),
        created: now,
        expires: now + ttl,
    })
}

/// As many letters as a token has, each as likely as any other.
fn letters() -> Result<Zeroizing<String>> {
    // The largest multiple of 36 that a byte can count to: what is above would
    // make the first letters likelier.
    const FAIR: u8 = 252;
    let mut letters = Zeroizing::new(String::with_capacity(ID + PROOF));
    let mut bytes = Zeroizing::new([0; 2 * (ID + PROOF)]);
    loop {
        issue::random(bytes.as_mut_slice())?;
        for byte in bytes.iter().filter(|byte| **byte < FAIR) {
            letters.push(char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
            if letters.len() == ID + PROOF {
                return Ok(letters);
            }
        }
    }
}

fn rfc3339(when: OffsetDateTime) -> String {
    when.format(&Rfc3339).unwrap_or_else(|_| when.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_form_that_kubernetes_takes_and_are_read_back() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let made = new(Duration::from_hours(24), now).unwrap();
            let text = made.write();
            let read = Life::read(text.expose_text().unwrap()).unwrap();
            assert_eq!((&read.id, &read.proof), (&made.id, &made.proof));
            assert_eq!((read.created, read.expires), (made.created, made.expires));
            assert!(seen.insert(read.id), "the same twice");
        }
    }

    #[test]
    fn a_token_is_replaced_in_its_last_quarter() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let day = Duration::from_hours(24);
        let token = new(day, now).unwrap();
        let after = |hours| now + Duration::from_hours(hours);
        assert_eq!(token.unfit(day, after(17)), None);
        assert!(
            token
                .unfit(day, after(18))
                .unwrap()
                .starts_with("it expires")
        );
        assert!(
            token
                .unfit(day, after(24))
                .unwrap()
                .starts_with("it had expired")
        );
        assert!(token.unfit(2 * day, now).unwrap().contains("tokenTTL"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let good = "token: abcdef.0123456789abcdef\ncreated: 2027-01-15T08:00:00Z\n\
                    expires: 2027-01-16T08:00:00Z\n";
        assert!(Life::read(good).is_ok());
        for (from, to) in [
            ("abcdef.", "abcde."),
            ("abcdef.", "abcdeF."),
            ("0123456789abcdef", "0123456789abcde"),
            ("abcdef.", "abcdef"),
            ("2027-01-15T08:00:00Z", "yesterday"),
            ("token:", "tokens:"),
        ] {
            let error = Life::read(&good.replace(from, to))
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains("remove it"), "{error}");
            assert!(!error.contains("0123456789"), "{error}");
        }
    }
}
