//! Is a service healthy, and is it time to restart it? Decided from probes'
//! outcomes and the time alone.
//!
//! One failure is none: a service is restarted after several failures in a
//! row over a while, once it had answered before, and never sooner after the
//! last time than a pause that doubles (F17).

use std::time::Duration;

/// How patient knode is with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Between probes of a service that is well.
    pub period: Duration,
    /// Between probes of one that is not.
    pub hurry: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures in a row…
    pub failures: u32,
    /// …over at least this long are a reason to restart it.
    pub span: Duration,
    /// So many answers in a row make it healthy again.
    pub successes: u32,
    /// How long it may take to answer for the first time after its start.
    pub grace: Duration,
    /// Between two restarts at least; doubles each time.
    pub cooldown: Duration,
    /// To this at most.
    pub longest_cooldown: Duration,
}

/// What runs on every node: a frozen one is noticed within 30 seconds (R9).
pub const NODE: Policy = Policy {
    period: Duration::from_secs(10),
    hurry: Duration::from_secs(3),
    timeout: Duration::from_secs(3),
    failures: 3,
    span: Duration::from_secs(15),
    successes: 2,
    grace: Duration::from_secs(60),
    cooldown: Duration::from_secs(60),
    longest_cooldown: Duration::from_secs(15 * 60),
};

/// What all of the cluster needs, and is slow to come back: more patience.
pub const CONTROL_PLANE: Policy = Policy {
    timeout: Duration::from_secs(5),
    failures: 5,
    span: Duration::from_secs(45),
    grace: Duration::from_secs(180),
    cooldown: Duration::from_secs(120),
    ..NODE
};

/// What a probe's outcome means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers, and has for long enough.
    Healthy,
    /// It answers again; not yet for long enough.
    Recovering,
    /// It has not answered since its start, which may still be.
    Starting,
    /// It failed, not yet for long enough.
    Suspect,
    /// It fails, and never answered while this knode ran: the probe may be
    /// what is wrong, so it is told and left alone.
    Unknown,
    /// It fails, and was restarted a short while ago.
    Cooling,
    /// It fails: restart it.
    Restart,
}

/// What is known of one service. Times are since any fixed moment.
#[derive(Debug, Clone)]
pub struct Health {
    policy: Policy,
    /// When its present run began.
    began: Duration,
    /// Whether this run has answered.
    answered: bool,
    /// Whether any run has.
    ever: bool,
    answers: u32,
    failures: u32,
    /// When the first of the failures in a row was asked.
    failing_since: Option<Duration>,
    /// It failed long enough to count, and has not answered long enough since.
    sick: bool,
    restarts: u32,
    restarted: Option<Duration>,
}

impl Health {
    /// Nothing is known yet; watched since `now`.
    pub fn new(policy: Policy, now: Duration) -> Self {
        Self {
            policy,
            began: now,
            answered: false,
            ever: false,
            answers: 0,
            failures: 0,
            failing_since: None,
            sick: false,
            restarts: 0,
            restarted: None,
        }
    }

    /// How patient it is.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// It was started anew, by whomever: its past is no longer held against it.
    pub fn began(&mut self, now: Duration) {
        self.began = now;
        self.answered = false;
        self.pardon();
    }

    /// What failed is another's fault: the failures in a row do not count.
    pub fn pardon(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.answers = 0;
    }

    /// It answered a probe.
    pub fn answered(&mut self, now: Duration) -> Verdict {
        self.failures = 0;
        self.failing_since = None;
        self.answers = self.answers.saturating_add(1);
        self.answered = true;
        self.ever = true;
        if self.sick && self.answers < self.policy.successes {
            return Verdict::Recovering;
        }
        self.sick = false;
        // Well for as long as the longest pause: the next pause is the first.
        if let Some(restarted) = self.restarted
            && now.saturating_sub(restarted) >= self.pause() + self.policy.longest_cooldown
        {
            self.restarts = 0;
            self.restarted = None;
        }
        Verdict::Healthy
    }

    /// A probe that was sent at `asked` failed by `now`.
    pub fn failed(&mut self, asked: Duration, now: Duration) -> Verdict {
        self.answers = 0;
        if !self.answered && now.saturating_sub(self.began) < self.policy.grace {
            return Verdict::Starting;
        }
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(asked);
        if self.failures < self.policy.failures || now.saturating_sub(since) < self.policy.span {
            return Verdict::Suspect;
        }
        self.sick = true;
        if !self.ever {
            return Verdict::Unknown;
        }
        match self.restarted {
            Some(last) if now.saturating_sub(last) < self.pause() => Verdict::Cooling,
            _ => Verdict::Restart,
        }
    }

    /// knode restarts it now.
    pub fn restarted(&mut self, now: Duration) {
        self.restarts = self.restarts.saturating_add(1);
        self.restarted = Some(now);
        self.began(now);
    }

    /// For how long its present run lasts.
    pub fn runs_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// How often knode restarted it lately.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether others that need it have to bear with it. One that never
    /// answered is in nobody's way: the probe may be what is wrong.
    pub fn is_doubtful(&self) -> bool {
        self.ever && (self.sick || self.failures > 0 || !self.answered)
    }

    /// How long to wait before the next probe.
    pub fn pace(&self) -> Duration {
        let starting = !self.ever && self.failures < self.policy.failures;
        if starting || self.is_doubtful() {
            self.policy.hurry
        } else {
            self.policy.period
        }
    }

    /// How long after the last restart there is none.
    fn pause(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.restarts.saturating_sub(1).min(16));
        let pause = self.policy.cooldown.saturating_mul(doubled);
        pause.min(self.policy.longest_cooldown)
    }
}

#[cfg(test)]
mod tests;
