//! Templates in the hands of Heat's own engine.

use std::fs;

use anyhow::{Result, ensure};
use tests::command::run;
use tests::programs::Programs;

use super::cloud::judge;
use super::{documented, settings};

#[test]
fn heat_takes_what_is_rendered() -> Result<()> {
    let programs = Programs::build()?;
    let folder = tempfile::tempdir()?;
    let render = |text: &str| -> Result<(String, String)> {
        settings(folder.path(), text)?;
        let mut kgen = std::process::Command::new(&programs.kgen);
        run(kgen
            .args(["render", "-o", "out"])
            .current_dir(folder.path()))?;
        let read = |name: &str| fs::read_to_string(folder.path().join("out/openstack").join(name));
        Ok((read("stack.yaml")?, read("environment.yaml")?))
    };
    let documents = tempfile::tempdir()?;
    let address = "api_floating_ip=6c1d6c4f-0000-4000-8000-000000000000";
    for nth in [0, 1] {
        let (stack, environment) = render(documented(nth))?;
        let order = judge(&stack, &environment, documents.path(), &[address])?;
        let at = |name: &str| order.iter().position(|one| one == name);
        // A machine that boots before there is a way out would wait for it.
        ensure!(at("router_interface") < at("server_master_1"), "{order:?}");
        let machines: &[&str] = match nth {
            0 => &["etcd-1", "etcd-2", "etcd-3", "master-1", "node-1", "node-2"],
            _ => &["master-1", "master-2", "master-3", "workers-3"],
        };
        for name in machines {
            let document = name
                .strip_suffix("-3")
                .filter(|n| *n == "workers")
                .unwrap_or(name);
            let rendered = fs::read(folder.path().join("out").join(document).join("user-data"))?;
            ensure!(
                fs::read(documents.path().join(name))? == rendered,
                "{name} differs"
            );
        }
        // It has an opinion.
        for (good, bad) in [
            ("fixed_ips:", "fixed_ip:"),
            ("hidden: true", "hidden: false"),
        ] {
            let wrong = stack.replacen(good, bad, 1);
            ensure!(wrong != stack, "no {good}");
            let judged = judge(&wrong, &environment, documents.path(), &[address]);
            ensure!(judged.is_err(), "{bad} was taken");
            if nth == 1 {
                break;
            }
        }
        ensure!(
            judge(&stack, &environment, documents.path(), &[]).is_err(),
            "an address is missing, and it was taken"
        );
    }
    Ok(())
}
