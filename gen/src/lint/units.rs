//! What systemd would make of units otherwise than was meant.

use std::collections::BTreeSet;
use std::ops::Range;

use super::document::Findings;

/// A unit or a drop-in within a document.
pub struct UnitText {
    /// The unit's name.
    pub unit: String,
    /// Whether this is a drop-in, and not the unit itself.
    pub drop_in: bool,
    /// The text.
    pub text: String,
    /// Where it stands in the document.
    pub at: Range<usize>,
}

/// What `%` may be followed by. Source: systemd.unit(5), "Specifiers".
const SPECIFIERS: &str = "aAbBcCdDEfgGhHiIjJlLmMnNopPqsStTuUvVwWyY%";
/// What systemd itself puts into a service's environment. Source:
/// systemd.exec(5), "Environment Variables in Spawned Processes".
const OWN: [&str; 22] = [
    "PATH",
    "LANG",
    "USER",
    "LOGNAME",
    "HOME",
    "SHELL",
    "INVOCATION_ID",
    "XDG_RUNTIME_DIR",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "MAINPID",
    "MANAGERPID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SERVICE_RESULT",
    "EXIT_CODE",
    "EXIT_STATUS",
];

impl UnitText {
    /// A unit or drop-in by its path on the machine, if it is one.
    pub fn of_path(path: &str, text: &str, at: &Range<usize>) -> Option<Self> {
        let folders = [
            "/etc/systemd/system/",
            "/run/systemd/system/",
            "/usr/lib/systemd/system/",
        ];
        let name = folders
            .iter()
            .find_map(|folder| path.strip_prefix(folder))?;
        let (unit, drop_in) = match name.split_once('/') {
            None => (name, false),
            Some((folder, file)) if file.ends_with(".conf") => (folder.strip_suffix(".d")?, true),
            Some(_) => return None,
        };
        Some(Self {
            unit: unit.to_owned(),
            drop_in,
            text: text.to_owned(),
            at: at.clone(),
        })
    }

    /// Whether it can be enabled.
    pub fn can_be_enabled(&self) -> bool {
        self.text.lines().any(|line| line.trim() == "[Install]")
    }

    /// The values of a setting.
    pub fn values(&self, wanted: &str) -> Vec<String> {
        let all = settings(&self.text).into_iter();
        all.filter(|(key, _)| key == wanted)
            .map(|(_, value)| value)
            .collect()
    }
}

/// Looks at all units of a document.
pub fn check(findings: &mut Findings, units: &[UnitText]) {
    for unit in units {
        let environment = environment(units, unit);
        for (key, value) in settings(&unit.text) {
            if key == "ConditionFileIsExecutable" {
                findings.warning(
                    &unit.at,
                    format!(
                        "{}: ConditionFileIsExecutable hides a failed download",
                        unit.unit
                    ),
                    "a unit whose condition does not hold is skipped and counts as started; let \
                     it fail instead",
                );
            }
            if let Some(trap) = percent(&value) {
                findings.error(
                    &unit.at,
                    format!("{}: {key}= has {trap:?}, which is no specifier", unit.unit),
                    "write %% for a percent sign",
                );
            } else if key.starts_with("Exec") && value.contains("+%") {
                findings.warning(
                    &unit.at,
                    format!(
                        "{}: {key}= has a date's %, which systemd replaces",
                        unit.unit
                    ),
                    "write %% for a percent sign",
                );
            }
            if let (true, Some(set)) = (key.starts_with("Exec"), &environment) {
                for name in variables(&value).filter(|name| !set.contains(name)) {
                    findings.warning(
                        &unit.at,
                        format!("{}: nothing sets ${name}, so {key}= loses it", unit.unit),
                        "write $$ for a dollar sign that the program is to see",
                    );
                }
            }
        }
    }
}

/// The variables that a unit's commands see; none where that cannot be known.
fn environment(units: &[UnitText], unit: &UnitText) -> Option<BTreeSet<String>> {
    let mut set: BTreeSet<String> = OWN.iter().map(|name| (*name).to_owned()).collect();
    let same = || units.iter().filter(|u| u.unit == unit.unit);
    if !same().any(|u| !u.drop_in) {
        return None;
    }
    for unit in same() {
        for (key, value) in settings(&unit.text) {
            match key.as_str() {
                "EnvironmentFile" => return None,
                "PassEnvironment" => set.extend(value.split_whitespace().map(str::to_owned)),
                "Environment" => set.extend(
                    value
                        .split(['"', '\'', ' '])
                        .filter_map(|word| word.split_once('='))
                        .map(|(name, _)| name.to_owned()),
                ),
                _ => {}
            }
        }
    }
    Some(set)
}

/// The settings of a unit, continued lines put together.
/// Source: systemd.syntax(7).
fn settings(text: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) || (line.is_empty() && !open) {
            continue;
        }
        let (line, continued) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        if open {
            if let Some((_, value)) = all.last_mut() {
                value.push(' ');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once('=') {
            all.push((key.trim().to_owned(), value.trim().to_owned()));
        } else {
            continue;
        }
        open = continued;
    }
    all
}

/// The first percent sign that begins no specifier, and what follows it.
fn percent(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        match after.chars().next() {
            Some(c) if SPECIFIERS.contains(c) => rest = &after[c.len_utf8()..],
            Some(c) => return Some(format!("%{c}")),
            None => return Some("%".to_owned()),
        }
    }
    None
}

/// The variables that systemd would replace in a command line.
fn variables(value: &str) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(escaped) = after.strip_prefix('$') {
            rest = escaped;
            continue;
        }
        let inner = after.strip_prefix('{').unwrap_or(after);
        let name: String = inner
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        rest = inner;
        if !name.is_empty() {
            names.push(name);
        }
    }
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_put_together() {
        let text = "[Service]\n# a=b\nExecStart=\nExecStart=/bin/a \\\n  -b \\\n# c\n  -c\nX = y\n";
        let expected = [
            ("ExecStart", ""),
            ("ExecStart", "/bin/a -b  -c"),
            ("X", "y"),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(settings(text), expected);
    }

    #[test]
    fn percent_and_dollar_signs_are_found() {
        assert_eq!(percent("a%%b %n %i"), None);
        assert_eq!(percent("https://a/b%20c").as_deref(), Some("%2"));
        assert_eq!(percent("100%").as_deref(), Some("%"));
        let names = |text: &str| variables(text).collect::<Vec<_>>().join(",");
        assert_eq!(names("$A ${B} $$C $(d) $1 $"), "A,B,1");
    }
}
