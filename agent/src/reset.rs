//! `knode reset`: makes this machine what it was before its document.
//!
//! [`observe`] looks, [`plan`] decides and knows nothing but what was seen,
//! [`apply`] does it. Whatever was done is not done again, so a reset that was
//! interrupted is begun anew; what says what there is to do goes last.

mod apply;
mod iptables;
mod observe;
mod plan;
mod ring;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use self::apply::Outcome;
use self::plan::{Action, Facts, Wishes};
use crate::error::{Code, Context as _, Error, Result};
use crate::run;
use crate::sys::root::Root;
use units::paths;

/// Says that this machine's member has left its ring.
const LEFT: &str = "/var/lib/knode/left-etcd";
/// Something could not be undone.
const INCOMPLETE: u8 = 4;

/// How a machine is to be reset.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Delete etcd's data; otherwise it is kept beside its place.
    #[arg(long)]
    etcd_data: bool,
    /// Go on though this member of etcd cannot leave its ring, or the ring
    /// would not do without it.
    #[arg(long)]
    abandon_etcd: bool,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Resets this machine, if it may.
///
/// # Errors
///
/// [`Code::Reset`]: it may not, and nothing was done; what keeps it from being
/// looked at.
pub fn reset(arguments: &Arguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Code::Reset, "only root may reset a machine"));
    }
    let root = Root::new("/");
    let wishes = Wishes {
        etcd_data: arguments.etcd_data,
        abandon: arguments.abandon_etcd,
    };
    let runtime = run::runtime()?;
    let facts = runtime.block_on(observe::observe(&root))?;
    let actions = plan::plan(&facts, wishes);
    if arguments.dry_run || actions.is_empty() {
        show(&facts, &actions, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = facts.obstacle.as_ref().filter(|_| !wishes.abandon) {
        let cure = "mend the ring first, or use --abandon-etcd";
        let told = format!("this machine's member cannot leave etcd's ring: {why}; {cure}");
        return Err(Error::new(Code::Reset, told));
    }
    if !arguments.yes {
        confirm(&facts, &actions, arguments.json)?;
    }
    let told = runtime.block_on(carry_out(&root, &facts, &actions, arguments.json))?;
    let failed = told.iter().any(|one| one["outcome"] == "failed");
    if arguments.json {
        let result =
            json!({"complete": !failed, "actions": told, "remarks": plan::remarks(&facts)});
        print(&format!("{result:#}\n"))?;
    } else {
        print(&remarks(&facts))?;
        print(match failed {
            true => "\nnot all was undone: run knode reset again\n",
            false => "\nthis machine is no longer a node\n",
        })?;
    }
    Ok(match failed {
        true => ExitCode::from(INCOMPLETE),
        false => ExitCode::SUCCESS,
    })
}

/// One thing after the other; what fails keeps nothing else from being done but
/// what has to be there for another try.
async fn carry_out(
    root: &Root,
    facts: &Facts,
    actions: &[Action],
    json: bool,
) -> Result<Vec<Value>> {
    let mut told = Vec::new();
    let mut failed = false;
    for action in actions {
        let outcome = match action.is_last() && failed {
            true => Ok(Outcome::Left("it is needed for another try".to_owned())),
            false => apply::apply(root, facts, action).await,
        };
        failed |= outcome.is_err();
        let one = account(action, &outcome);
        if !json {
            print(&line(&one))?;
        }
        told.push(one);
        // The ring still counts on it.
        if *action == Action::LeaveRing && outcome.is_err() {
            break;
        }
    }
    Ok(told)
}

/// One thing as it is told to programs.
fn account(action: &Action, outcome: &Result<Outcome>) -> Value {
    let (word, message) = match outcome {
        Ok(Outcome::Done) => ("done", String::new()),
        Ok(Outcome::Told(message)) => ("done", message.clone()),
        Ok(Outcome::Nothing) => ("nothing", "it was so".to_owned()),
        Ok(Outcome::Left(why)) => ("left", why.clone()),
        Err(error) => ("failed", error.story()),
    };
    let mut one = json!({
        "action": action.word(),
        "subject": action.subject(),
        "outcome": word,
    });
    if !message.is_empty() {
        one["message"] = json!(message);
    }
    if let Err(error) = outcome {
        one["code"] = json!(error.code().as_str());
    }
    one
}

/// The same for people.
fn line(one: &Value) -> String {
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let word = match text("outcome") {
        "failed" => "FAILED",
        word => word,
    };
    let mut line = format!("{word:<8} {:<8} {}", text("action"), text("subject"));
    for more in [text("code"), text("message")] {
        if !more.is_empty() {
            line.push_str(": ");
            line.push_str(more);
        }
    }
    line.push('\n');
    line
}

fn remarks(facts: &Facts) -> String {
    let remarks = plan::remarks(facts).into_iter();
    let lines: String = remarks.map(|told| format!("- {told}\n")).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\n{lines}"),
    }
}

/// What would be done.
fn show(facts: &Facts, actions: &[Action], json: bool) -> Result<()> {
    if json {
        let planned = actions.iter().map(|action| {
            json!({"action": action.word(), "subject": action.subject(), "outcome": "planned"})
        });
        let planned: Vec<Value> = planned.collect();
        let result = json!({
            "complete": planned.is_empty(),
            "actions": planned,
            "obstacle": facts.obstacle,
            "remarks": plan::remarks(facts),
        });
        return print(&format!("{result:#}\n"));
    }
    if actions.is_empty() {
        return print("nothing of knode is on this machine\n");
    }
    let lines = actions.iter();
    let lines: String = lines
        .map(|action| format!("{:<8} {}\n", action.word(), action.subject()))
        .collect();
    print(&lines)?;
    if let Some(why) = &facts.obstacle {
        print(&format!("\nin the way: {why}\n"))?;
    }
    print(&remarks(facts))
}

/// Whoever types the machine's name knows which one it is.
fn confirm(facts: &Facts, actions: &[Action], json: bool) -> Result<()> {
    if json || !std::io::stdin().is_terminal() {
        let told = "nobody is there to be asked: use --yes, and --dry-run before";
        return Err(Error::new(Code::Reset, told));
    }
    show(facts, actions, false)?;
    let name = facts
        .config
        .as_ref()
        .and_then(|config| config.node.name.as_ref());
    let name = name.map_or("yes", |name| name.as_str());
    print(&format!("\nTo go on, type {name}: "))?;
    let mut answer = String::new();
    let asking = || "asking".to_owned();
    std::io::stdout().flush().context(Code::Reset, asking)?;
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.context(Code::Reset, asking)?;
    if answer.trim() == name {
        return Ok(());
    }
    Err(Error::new(
        Code::Reset,
        "it was not confirmed; nothing was done",
    ))
}

/// Whether this machine's member has left its ring, in a reset before this one.
fn has_left(root: &Root) -> Result<bool> {
    Ok(root.exists(LEFT)?)
}

fn note_left(root: &Root) -> Result<()> {
    root.create_dir(paths::STATE_DIR, 0o700)?;
    root.write_atomic(LEFT, b"", 0o600)?;
    Ok(())
}

/// To standard output. A reader that went away keeps nothing from being done.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Code::Disk, "writing to standard output").because(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_told_with_its_outcome() {
        let action = Action::Stop("kubelet.service".to_owned());
        let done = line(&account(&action, &Ok(Outcome::Done)));
        assert_eq!(done, "done     stop     kubelet.service\n");
        let failed = Err(Error::new(Code::UnitFailed, "stopping kubelet.service"));
        let told = account(&action, &failed);
        assert_eq!(told["code"], "E-UNIT-FAILED");
        let failed = line(&told);
        assert!(failed.starts_with("FAILED   stop") && failed.contains("E-UNIT-FAILED"));
    }
}
