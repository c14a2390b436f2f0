//! The scripts for Azure, run with an az command that only keeps books. (P45,
//! P58)

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use common::Folder;
use common::azure::{documented, of_type, rendered, small, template, variants};

const AZ: &str = include_str!("common/az.sh");

/// What was rendered, and the books.
struct Account(Folder);

impl Account {
    fn new(settings: &str) -> Self {
        let folder = rendered(settings);
        fs::create_dir(folder.path("bin")).unwrap();
        folder.write("bin/az", AZ);
        fs::set_permissions(folder.path("bin/az"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path("books")).unwrap();
        Self(folder)
    }

    /// Runs a script in another folder than its own, with `answer` typed.
    fn run(&self, script: &str, args: &[&str], fail: &str, answer: &str) -> Output {
        self.0.write("books/log", "");
        let path = std::env::var("PATH").unwrap();
        let mut child = Command::new(self.0.path(&format!("out/azure/{script}")))
            .args(args)
            .current_dir("/")
            .env("PATH", format!("{}:{path}", self.0.path("bin").display()))
            .env("AZ_STATE", self.0.path("books"))
            .env("AZ_FAIL", fail)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A script that asks nothing does not read what is typed.
        drop(child.stdin.take().unwrap().write_all(answer.as_bytes()));
        child.wait_with_output().unwrap()
    }

    fn up(&self) {
        let output = self.run("up", &[], "none", "");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    }

    /// What was called that is no look.
    fn made(&self) -> Vec<String> {
        let log = self.0.read("books/log");
        let looks = |line: &&str| {
            let words = line.split(" --").next().unwrap();
            !["list", "exists", "show"]
                .iter()
                .any(|look| words.ends_with(look))
        };
        log.lines().filter(looks).map(str::to_owned).collect()
    }
}

#[test]
fn scripts_pass_shellcheck() {
    if Command::new("shellcheck")
        .arg("--version")
        .output()
        .is_err()
    {
        common::skip("scripts_pass_shellcheck", "there is no shellcheck");
        return;
    }
    for (variant, settings) in variants() {
        for extra in ["", "gzip: true\n"] {
            let folder = rendered(&format!("{extra}{settings}"));
            for script in ["up", "down"] {
                let path = folder.path(&format!("out/azure/{script}"));
                let output = Command::new("shellcheck").arg(path).output().unwrap();
                let told = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{variant}: {script}: {told}");
            }
        }
    }
}

/// What a command of az makes, as a type of resources.
const KINDS: [(&str, &str); 9] = [
    ("network nsg", "Microsoft.Network/networkSecurityGroups"),
    ("network route-table", "Microsoft.Network/routeTables"),
    ("network vnet", "Microsoft.Network/virtualNetworks"),
    ("network public-ip", "Microsoft.Network/publicIPAddresses"),
    ("network lb", "Microsoft.Network/loadBalancers"),
    ("network nic", "Microsoft.Network/networkInterfaces"),
    ("vm availability-set", "Microsoft.Compute/availabilitySets"),
    ("vm", "Microsoft.Compute/virtualMachines"),
    ("vmss", "Microsoft.Compute/virtualMachineScaleSets"),
];

/// The script makes what the template makes, with the documents themselves.
#[test]
fn up_makes_what_the_template_has() {
    for (variant, settings) in variants() {
        let account = Account::new(&settings);
        account.up();
        let template = template(&account.0);
        let there = account.0.read("books/there");
        let there: BTreeSet<&str> = there.lines().collect();
        let mut wanted = BTreeSet::new();
        for (words, kind) in KINDS {
            for resource in of_type(&template, kind) {
                let name = resource["name"].as_str().unwrap();
                wanted.insert(format!("{words}//{name}"));
                let children = [
                    ("subnets", "subnet"),
                    ("securityRules", "rule"),
                    ("routes", "route"),
                    ("probes", "probe"),
                    ("loadBalancingRules", "rule"),
                    ("outboundRules", "outbound-rule"),
                    ("inboundNatRules", "inbound-nat-rule"),
                ];
                for (key, word) in children {
                    for child in resource["properties"][key].as_array().into_iter().flatten() {
                        let child = child["name"].as_str().unwrap();
                        wanted.insert(format!("{words} {word}/{name}/{child}"));
                    }
                }
                // A load balancer is made with its first pool.
                let pools = &resource["properties"]["backendAddressPools"];
                for pool in pools.as_array().into_iter().flatten().skip(1) {
                    let pool = pool["name"].as_str().unwrap();
                    wanted.insert(format!("{words} address-pool/{name}/{pool}"));
                }
            }
        }
        let there: BTreeSet<String> = there.into_iter().map(str::to_owned).collect();
        assert_eq!(there, wanted, "{variant}");
        // Raw documents, by their paths.
        let made = account.made();
        let machines: Vec<&String> = made
            .iter()
            .filter(|line| line.starts_with("vm create") || line.starts_with("vmss create"))
            .collect();
        for line in &machines {
            let path = line.split("--custom-data ").nth(1).unwrap();
            let path = path.split(' ').next().unwrap();
            let document = fs::read_to_string(path).unwrap();
            assert!(document.starts_with("#cloud-config\n"), "{variant}: {path}");
        }
        let of_template =
            of_type(&template, KINDS[7].1).len() + of_type(&template, KINDS[8].1).len();
        assert_eq!(machines.len(), of_template, "{variant}");
    }
}

/// Run again, it leaves alone what is there: machines above all.
#[test]
fn up_can_be_run_again() {
    for (variant, settings) in variants() {
        let account = Account::new(&settings);
        account.up();
        let before = account.0.read("books/there");
        account.up();
        for line in account.made() {
            // These only say again what is meant.
            let again = [
                "network nsg rule create",
                "network route-table route create",
                "vm boot-diagnostics enable",
                "vmss update",
            ];
            assert!(
                again.iter().any(|again| line.starts_with(again)),
                "{variant}: {line}"
            );
        }
        let unique = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(
            unique(&account.0.read("books/there")),
            unique(&before),
            "{variant}"
        );
    }
}

/// What fails ends it, at once and with its status; the next run goes on there.
#[test]
fn up_ends_where_az_fails() {
    let account = Account::new(&documented()[0]);
    for fail in [
        "group exists",
        "group create",
        "network vnet list",
        "network lb create",
        "account show",
        "vm create --name node-1",
    ] {
        let output = account.run("up", &[], fail, "");
        assert_eq!(output.status.code(), Some(1), "{fail}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("az: no such luck"), "{fail}: {told}");
        let log = account.0.read("books/log");
        let last = log.lines().last().unwrap();
        assert!(last.starts_with(fail), "{fail}: went on with {last}");
    }
    account.up();
    let made = account.made();
    let machines: Vec<&String> = made
        .iter()
        .filter(|line| line.starts_with("vm create"))
        .collect();
    assert_eq!(machines.len(), 2, "{machines:?}");
}

/// A rule that is no longer meant goes.
#[test]
fn whoever_is_no_longer_named_is_kept_out() {
    let account = Account::new(&small(
        "sshFrom: [192.0.2.0/24], apiFrom: [192.0.2.0/24]",
        "",
    ));
    account.up();
    let there = || account.0.read("books/there");
    assert!(there().contains("network nsg rule/small-nsg/ssh\n"));
    account
        .0
        .write("cluster.yaml", &small("apiFrom: [192.0.2.0/24]", ""));
    account.0.run(&["render", "-o", "out"]);
    account.up();
    assert!(!there().contains("/ssh\n"), "{}", there());
    assert!(there().contains("network nsg rule/small-nsg/api\n"));
}

/// az would not read these as they are.
#[test]
fn documents_that_are_not_ascii_go_by_the_template() {
    let named = small("", "").replace("ops@example.com", "Jürgen");
    for settings in [named, small("", "gzip: true\n")] {
        let account = Account::new(&settings);
        account.up();
        let made = account.made();
        assert_eq!(made.len(), 2, "{made:?}");
        assert!(made[1].starts_with("deployment group create "), "{made:?}");
    }
    let account = Account::new(&small("", ""));
    let output = account.run("up", &["--template"], "none", "");
    assert!(output.status.success());
    let made = account.made();
    assert_eq!(made.len(), 2, "{made:?}");
    for (option, file) in [
        ("--template-file ", "template.json"),
        ("--parameters @", "parameters.json"),
    ] {
        let path = made[1]
            .split(option)
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        assert!(path.ends_with(file) && fs::metadata(path).is_ok(), "{path}");
    }
    let output = account.run("up", &["--templates"], "none", "");
    assert_eq!(output.status.code(), Some(2));
    assert!(account.made().is_empty());
}

/// It asks first, and takes no other group than its own.
#[test]
fn down_asks_and_tells_what_failed() {
    let account = Account::new(&documented()[0]);
    let there = || account.0.path("books/group").exists();
    // Nothing is there.
    let output = account.run("down", &[], "none", "");
    assert!(output.status.success() && account.made().is_empty());
    account.up();
    for answer in ["", "yes\n", "dem\n"] {
        let output = account.run("down", &[], "none", answer);
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert!(account.made().is_empty() && there(), "{answer:?}");
    }
    for fail in [
        "group exists",
        "group show",
        "resource list",
        "group delete",
    ] {
        let output = account.run("down", &[], fail, "demo\n");
        assert_eq!(output.status.code(), Some(1), "{fail}");
        assert!(there(), "{fail}");
    }
    assert_eq!(
        account.run("down", &["--force"], "none", "").status.code(),
        Some(2)
    );
    let output = account.run("down", &[], "none", "demo\n");
    assert!(output.status.success() && !there());
    account.up();
    let output = account.run("down", &["--yes"], "none", "");
    assert!(output.status.success() && !there());
    // A group that somebody else made.
    account.0.write("books/group", "\n");
    let output = account.run("down", &["--yes"], "none", "");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("was not made for demo") && there(), "{told}");
    assert!(account.made().is_empty());
}

/// A pool keeps the number of machines that somebody gave it since.
#[test]
fn a_pool_is_scaled_once() {
    let account = Account::new(&documented()[1]);
    account.up();
    assert_eq!(account.0.read("books/capacity"), "3\n");
    account.0.write("books/capacity", "7\n");
    account.up();
    assert_eq!(account.0.read("books/capacity"), "7\n");
    let made = account.made();
    let update = made
        .iter()
        .find(|line| line.starts_with("vmss update"))
        .unwrap();
    assert!(update.contains("enableIPForwarding=true") && update.contains("/workers/user-data"));
}
