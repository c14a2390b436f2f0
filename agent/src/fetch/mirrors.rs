//! What is remembered of mirrors, so that one that is dead costs one timeout
//! and not one for each artifact, and one that lies is left alone (F1, F2).
//!
//! Pure: the time is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::sys::http::Blame;

/// How long a mirror comes last after its first failure.
const REST: Duration = Duration::from_secs(30);
/// How long at most, however often it fails.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// How long at most a server may ask to be left alone.
const LONGEST_HOLD: Duration = Duration::from_secs(120);

/// The mirrors, as far as they were in trouble.
#[derive(Debug, Default)]
pub struct Mirrors {
    /// By server, or by address where only one file is bad.
    health: BTreeMap<String, Health>,
    /// Servers that sent wrong bytes; for as long as the agent lives.
    liars: BTreeSet<String>,
}

#[derive(Debug)]
struct Health {
    failures: u32,
    /// Comes last until then.
    rests_until: Instant,
    /// Is not asked until then.
    held_until: Option<Instant>,
}

impl Mirrors {
    /// Which of these addresses to try, in this order: those in good health as
    /// they are listed, then those that rest, the first to be rested first.
    /// Left out: liars where anybody else is left, and those who asked to be
    /// left alone for now.
    pub fn order<'a>(&self, urls: &'a [String], now: Instant) -> Vec<&'a str> {
        let honest = |url: &&String| !self.liars.contains(server(url));
        let anybody = urls.iter().any(|url| honest(&url));
        let mut order: Vec<(Option<Instant>, &str)> = urls
            .iter()
            .filter(|url| !anybody || honest(url))
            .filter(|url| self.held(url, now).is_none())
            .map(|url| (self.rests(url, now), url.as_str()))
            .collect();
        // A stable sort: the listed order is kept among equals.
        order.sort_by_key(|(rests, _)| *rests);
        order.into_iter().map(|(_, url)| url).collect()
    }

    /// How long until the first of these may be asked again, where all of them
    /// asked to be left alone.
    pub fn pause(&self, urls: &[String], now: Instant) -> Option<Duration> {
        let held: Option<Vec<Duration>> = urls.iter().map(|url| self.held(url, now)).collect();
        held?.into_iter().min()
    }

    /// An address failed.
    pub fn failed(&mut self, url: &str, blame: Blame, retry_after: Option<Duration>, now: Instant) {
        let key = match blame {
            Blame::Server => server(url),
            Blame::File => url,
        };
        let health = self.health.entry(key.to_owned()).or_insert(Health {
            failures: 0,
            rests_until: now,
            held_until: None,
        });
        // Old failures are forgotten after as long a time as they cost.
        let quiet = now.saturating_duration_since(health.rests_until);
        if quiet > rest(health.failures) {
            health.failures = 0;
        }
        health.failures = health.failures.saturating_add(1);
        health.rests_until = now + rest(health.failures);
        health.held_until = retry_after.map(|asked| now + asked.min(LONGEST_HOLD));
    }

    /// An address sent all of a file, and rightly.
    pub fn succeeded(&mut self, url: &str) {
        self.health.remove(server(url));
        self.health.remove(url);
    }

    /// An address sent wrong bytes. Whether that is news of its server.
    pub fn lied(&mut self, url: &str) -> bool {
        self.liars.insert(server(url).to_owned())
    }

    fn rests(&self, url: &str, now: Instant) -> Option<Instant> {
        self.of(url)
            .map(|health| health.rests_until)
            .filter(|until| *until > now)
            .max()
    }

    fn held(&self, url: &str, now: Instant) -> Option<Duration> {
        self.of(url)
            .filter_map(|health| health.held_until?.checked_duration_since(now))
            .filter(|left| !left.is_zero())
            .max()
    }

    fn of(&self, url: &str) -> impl Iterator<Item = &Health> {
        [server(url), url]
            .into_iter()
            .filter_map(|key| self.health.get(key))
    }
}

fn rest(failures: u32) -> Duration {
    REST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)))
        .min(LONGEST_REST)
}

/// The part of an address that names the server: `https://mirror.example:8443`.
pub fn server(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let length = url[start..].find(['/', '?', '#']);
    length.map_or(url, |length| &url[..start + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(names: &[&str]) -> Vec<String> {
        names
            .iter()
            .map(|name| format!("http://{name}/x"))
            .collect()
    }

    fn order(mirrors: &Mirrors, urls: &[String], now: Instant) -> String {
        let order = mirrors.order(urls, now);
        let hosts: Vec<&str> = order
            .iter()
            .map(|url| server(url).trim_start_matches("http://"))
            .collect();
        hosts.join(" ")
    }

    #[test]
    fn a_server_is_the_part_before_the_path() {
        for (url, name) in [
            ("http://a:80/x/y", "http://a:80"),
            ("https://[fd00::1]/x", "https://[fd00::1]"),
            ("http://a?x=/y", "http://a"),
            ("http://a", "http://a"),
        ] {
            assert_eq!(server(url), name);
        }
    }

    /// F2: a dead mirror is tried last for a while, for every file it has.
    #[test]
    fn f2_who_failed_comes_last_for_a_while_and_ever_longer() {
        let (mut mirrors, all, now) = (Mirrors::default(), urls(&["a", "b", "c"]), Instant::now());
        assert_eq!(order(&mirrors, &all, now), "a b c");
        mirrors.failed("http://a/another-file", Blame::Server, None, now);
        assert_eq!(order(&mirrors, &all, now), "b c a");
        assert_eq!(order(&mirrors, &all, now + REST), "a b c");
        mirrors.failed(&all[0], Blame::Server, None, now + REST);
        assert_eq!(order(&mirrors, &all, now + REST * 2), "b c a");
        assert_eq!(order(&mirrors, &all, now + REST * 3), "a b c");
        // The one that is rested first is tried first.
        mirrors.failed(&all[2], Blame::Server, None, now + REST);
        mirrors.failed(&all[1], Blame::Server, None, now + REST);
        let later = now + REST + Duration::from_secs(1);
        assert_eq!(order(&mirrors, &all, later), "b c a");
        mirrors.succeeded(&all[0]);
        assert_eq!(order(&mirrors, &all, later), "a b c");
    }

    #[test]
    fn old_failures_are_forgotten_and_none_is_held_against_it_for_ever() {
        let (mut mirrors, all, now) = (Mirrors::default(), urls(&["a", "b"]), Instant::now());
        for _ in 0..40 {
            mirrors.failed(&all[0], Blame::Server, None, now);
        }
        assert_eq!(order(&mirrors, &all, now + LONGEST_REST), "a b");
        let much_later = now + LONGEST_REST * 3;
        mirrors.failed(&all[0], Blame::Server, None, much_later);
        assert_eq!(order(&mirrors, &all, much_later + REST), "a b");
    }

    #[test]
    fn a_missing_file_says_nothing_of_the_servers_other_files() {
        let (mut mirrors, all, now) = (Mirrors::default(), urls(&["a", "b"]), Instant::now());
        mirrors.failed("http://a/another-file", Blame::File, None, now);
        assert_eq!(order(&mirrors, &all, now), "a b");
        mirrors.failed("http://a/x", Blame::File, None, now);
        assert_eq!(order(&mirrors, &all, now), "b a");
    }

    /// F1: who lied once is asked again only when nobody else is left.
    #[test]
    fn f1_a_liar_is_out_unless_all_are() {
        let (mut mirrors, all, now) = (Mirrors::default(), urls(&["a", "b"]), Instant::now());
        assert!(mirrors.lied("http://a/another-file"));
        assert!(!mirrors.lied("http://a/x"));
        mirrors.failed(&all[1], Blame::Server, None, now);
        assert_eq!(order(&mirrors, &all, now), "b");
        assert_eq!(order(&mirrors, &all[..1], now), "a");
        assert!(mirrors.lied("http://b/x"));
        assert_eq!(order(&mirrors, &all, now), "a b");
    }

    #[test]
    fn a_server_that_asks_for_a_pause_gets_it_within_reason() {
        let (mut mirrors, all, now) = (Mirrors::default(), urls(&["a", "b"]), Instant::now());
        let minute = Duration::from_secs(60);
        mirrors.failed(&all[0], Blame::Server, Some(minute), now);
        assert_eq!(order(&mirrors, &all, now), "b");
        assert_eq!(mirrors.pause(&all, now), None);
        mirrors.failed(&all[1], Blame::Server, Some(minute * 600), now);
        assert_eq!(order(&mirrors, &all, now), "");
        assert_eq!(mirrors.pause(&all, now), Some(minute));
        assert_eq!(order(&mirrors, &all, now + LONGEST_HOLD), "a b");
    }
}
