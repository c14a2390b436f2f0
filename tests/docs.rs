//! The documentation is tested: what it says to type works as written, and what
//! it points to is there.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser as _;
use images::catalogue::{self, Catalogue, Content};
use tests::command::{Output, run_within};
use tests::programs::Programs;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LIMIT: Duration = Duration::from_secs(60);

/// README.md and docs/*.md.
fn pages() -> Result<Vec<(PathBuf, String)>> {
    let root = Path::new(ROOT);
    let mut paths = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).context("reading docs/")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        Ok((path, text))
    };
    paths.into_iter().map(read).collect()
}

/// The code blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    let after = text.split(open.as_str()).skip(1);
    after.filter_map(|rest| rest.split("```").next()).collect()
}

/// A page without its code blocks.
fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split("```").step_by(2).collect();
    parts.join("\n")
}

/// A line without its comment.
fn typed(line: &str) -> &str {
    line.split(" #").next().unwrap_or(line).trim()
}

fn sh(script: &str, folder: &Path, programs: &Programs) -> Result<Output> {
    let beside = programs.kgen.parent().context("kgen is in no folder")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(
        [beside.to_owned()]
            .into_iter()
            .chain(env::split_paths(&path)),
    )?;
    let mut sh = Command::new("sh");
    sh.args(["-euxc", script])
        .current_dir(folder)
        .env("PATH", path);
    run_within(&mut sh, b"", LIMIT)
}

#[test]
fn a_cluster_of_ones_own_as_the_readme_says() -> Result<()> {
    let programs = Programs::build()?;
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md"))?;
    let (_, section) = readme
        .split_once("\n## A cluster of one's own\n")
        .context("README.md has no such section")?;
    let block = *blocks(section, "sh").first().context("no commands")?;
    let lines: Vec<&str> = block
        .lines()
        .filter(|line| line.starts_with("kgen "))
        .collect();
    ensure!(lines.len() >= 5, "too few kgen lines: {block}");
    let folder = tempfile::tempdir()?;
    // Each line as it stands, comment and all, one after the other.
    for line in &lines {
        let output = sh(line, folder.path(), &programs)?;
        let told = output.stderr.clone();
        output.ok().with_context(|| (*line).to_owned())?;
        ensure!(!told.contains("panicked"), "{line}: {told}");
    }
    let read = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name));
        text.with_context(|| format!("the commands made no {name}"))
    };
    ensure!(read("cluster.yaml")?.contains("\nnodes:"));
    for name in ["master.user-data", "node-1.user-data"] {
        let text = read(name)?;
        ensure!(text.starts_with("#cloud-config\n"), "{name}: {text}");
    }
    // Everything for everybody is the same as each for itself.
    for name in ["master", "node-1"] {
        let each = read(&format!("{name}.user-data"))?;
        ensure!(
            each == read(&format!("out/{name}/user-data"))?,
            "{name} differs"
        );
    }
    ensure!(read("out/node-2/user-data")?.starts_with("#cloud-config\n"));
    let kubeconfig = read("admin.conf")?;
    ensure!(kubeconfig.contains("\nkind: Config\n") || kubeconfig.contains("kind: Config"));
    ensure!(
        kubeconfig.contains("server: https://10.0.0.10:6443"),
        "no server"
    );
    Ok(())
}

/// Commands in code blocks and between backticks, without those that leave
/// something out (`…`) or have a placeholder.
fn commands(program: &str) -> Result<Vec<(String, String)>> {
    let start = format!("{program} ");
    let mut found = Vec::new();
    for (path, text) in pages()? {
        let page = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let blocks = blocks(&text, "sh").join("\n");
        let prose = prose(&text);
        let spans = prose.split('`').skip(1).step_by(2);
        let all = blocks.lines().map(typed).chain(spans);
        let whole = all.filter(|line| line.starts_with(&start) && !line.contains('…'));
        found.extend(whole.map(|line| (page.clone(), line.to_owned())));
    }
    Ok(found)
}

/// Whether a program takes these words: with `--help` behind them it reads
/// all of them, does nothing, and exits with 0, or with 2 at the first that
/// it does not know.
fn accepts(program: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(words).arg("--help");
    run_within(&mut command, b"", LIMIT)
}

#[test]
fn every_command_in_the_documentation_is_one() -> Result<()> {
    let programs = Programs::build()?;
    let mut knode = 0;
    for (name, program) in [("knode", &programs.knode), ("kgen", &programs.kgen)] {
        for (page, line) in commands(name)? {
            let line = line.split(['>', '|', '&', ';']).next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            let output = accepts(program, &words)?;
            ensure!(output.code() == 0, "{page}: {line}: {}", output.stderr);
            knode += usize::from(name == "knode");
            println!("{page}: {line}");
        }
    }
    ensure!(knode >= 2, "only {knode} knode commands found");
    for (page, line) in commands("kimage")? {
        if let Err(error) = images::cli::Cli::try_parse_from(line.split_whitespace()) {
            anyhow::bail!("{page}: {line}: {error}");
        }
        println!("{page}: {line}");
    }
    // The check itself can fail.
    for wrong in [
        &["no-such-command"][..],
        &["status", "--no-such-flag"],
        &["wait", "nonsense"],
        &["wait", "tcp://10.0.0.10:6443", "--timeout", "soon"],
    ] {
        let output = accepts(&programs.knode, wrong)?;
        ensure!(output.code() == 2, "{wrong:?}: {}", output.code());
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut links = 0;
    for (path, text) in pages()? {
        let folder = path.parent().context("a page without a folder")?;
        for rest in prose(&text).split("](").skip(1) {
            let link = rest.split([')', ' ']).next().unwrap_or_default();
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            ensure!(target.exists(), "{}: {link} is not there", path.display());
            if !anchor.is_empty() {
                let page = fs::read_to_string(&target)?;
                ensure!(
                    has_heading(&page, anchor),
                    "{}: no heading {link}",
                    path.display()
                );
            }
            links += 1;
        }
    }
    ensure!(links >= 3, "only {links} links found");
    Ok(())
}

/// Whether a page has the heading of an anchor, as GitHub makes them.
fn has_heading(page: &str, anchor: &str) -> bool {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim())
        .any(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c })
                .eq(anchor.chars())
        })
}

#[test]
fn folders_that_the_readme_names_are_there() -> Result<()> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md"))?;
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut found = 0;
    for row in rows {
        let folder = row.split('`').next().unwrap_or_default();
        ensure!(
            Path::new(ROOT).join(folder).exists(),
            "README.md: no {folder}"
        );
        found += 1;
    }
    ensure!(found >= 6, "only {found} folders found");
    Ok(())
}

/// What the documented settings refer to.
const BESIDE: [(&str, &str); 7] = [
    ("proxy-url", "http://kgen:hunter2@proxy.example.com:3128\n"),
    (
        "id_ed25519.pub",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBZbfAqJaC5IZUUG35d9b9SRRvo82jvYblSpYtQtbVq1 ops@example.com\n",
    ),
    ("mirror-password", "hunter2\n"),
    (
        "mirror-ca.crt",
        "-----BEGIN CERTIFICATE-----\nMIIBeDCCAR+gAwIBAgIUFAKNsc+nrhofGpXT/6cNYG29uH0wCgYIKoZIzj0EAwIw\nETEPMA0GA1UEAwwGbWlycm9yMCAXDTI2MTEyMDE2MDEzOFoYDzIxMjYxMDI3MTYw\nMTM4WjARMQ8wDQYDVQQDDAZtaXJyb3IwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\nAATdgwmdalcDqH59gL/9C3vGT8e0a88p1COQ14/NcM0fgnExDxAjKl+dYhxKk8xs\nrl3Crg/x5cGtayHcRGPbwswto1MwUTAdBgNVHQ4EFgQUg7wBeTfel3qpb4Lxd05d\nuubaaPowHwYDVR0jBBgwFoAUg7wBeTfel3qpb4Lxd05duubaaPowDwYDVR0TAQH/\nBAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAllQKIPMYjSJkyaX2QVnkNgeJLBvyt\nSt2Wo0OwWyJj8gIgLS9y3si5DPZB++U5kiqfMo3BUN3HIg/Tljw3FsgMi2c=\n-----END CERTIFICATE-----\n",
    ),
    ("registry-password", "hunter2\n"),
    ("backup.sh", "#!/bin/sh\nexec true\n"),
    ("disk.sh", "#!/bin/sh\nmount /dev/vdb /var/lib/etcd\n"),
];

#[test]
fn the_settings_in_the_documentation_are_valid() -> Result<()> {
    let programs = Programs::build()?;
    let text = fs::read_to_string(Path::new(ROOT).join("docs/settings.md"))?;
    let (mut settings, mut locks) = (0, 0);
    for block in blocks(&text, "yaml") {
        let folder = tempfile::tempdir()?;
        for (file, text) in BESIDE {
            fs::write(folder.path().join(file), text)?;
        }
        if block.starts_with("version: 1\n") {
            fs::write(folder.path().join("kgen.lock"), block)?;
            fs::write(
                folder.path().join("cluster.yaml"),
                "nodes:\n- {name: master, role: master, address: 10.0.0.10}\n",
            )?;
            locks += 1;
        } else {
            fs::write(folder.path().join("cluster.yaml"), block)?;
            settings += 1;
        }
        let output = sh(
            "kgen --role master -f cluster.yaml",
            folder.path(),
            &programs,
        )?;
        let document = output.ok().with_context(|| block.to_owned())?;
        ensure!(document.starts_with("#cloud-config\n"), "{document}");
    }
    ensure!(
        settings >= 1 && locks >= 1,
        "{settings} settings, {locks} locks"
    );
    Ok(())
}

/// The page's settings make what its commands name in this folder; those that ask
/// a cluster or its platform are not run.
fn as_the_page_says(page: &str, folder: &str, asks: &[&str]) -> Result<()> {
    let programs = Programs::build()?;
    let page = fs::read_to_string(Path::new(ROOT).join(page))?;
    let commands = blocks(&page, "sh").join("\n");
    let ours: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("kgen ") && !asks.iter().any(|ask| line.starts_with(ask)))
        .collect();
    ensure!(ours.len() >= 3, "too few kgen lines: {commands}");
    let named: Vec<&str> = commands
        .split_whitespace()
        .map(|word| word.trim_start_matches('@'))
        .filter(|word| word.starts_with(folder))
        .collect();
    ensure!(named.len() >= 4, "too few files: {commands}");
    let settings = blocks(&page, "yaml");
    ensure!(settings.len() == 2, "{} settings", settings.len());
    for block in settings {
        let folder = tempfile::tempdir()?;
        for (file, text) in BESIDE {
            fs::write(folder.path().join(file), text)?;
        }
        fs::write(folder.path().join("cluster.yaml"), block)?;
        for line in &ours {
            let output = sh(line, folder.path(), &programs)?;
            output.ok().with_context(|| (*line).to_owned())?;
        }
        for file in &named {
            ensure!(folder.path().join(file).exists(), "{file} was not made");
        }
    }
    Ok(())
}

#[test]
fn a_cluster_on_azure_as_its_page_says() -> Result<()> {
    as_the_page_says("docs/azure.md", "out/azure/", &["kgen wait"])
}

/// tests/openstack runs its scripts.
#[test]
fn a_cluster_on_openstack_as_its_page_says() -> Result<()> {
    let asks = ["kgen wait", "kgen openstack"];
    as_the_page_says("docs/openstack.md", "out/openstack/", &asks)
}

/// The page's settings make what its commands name; dnsmasq tries its own, and
/// what serves for ever is begun and ended.
#[test]
fn a_cluster_from_the_network_as_its_page_says() -> Result<()> {
    let programs = Programs::build()?;
    let page = fs::read_to_string(Path::new(ROOT).join("docs/pxe.md"))?;
    let commands = blocks(&page, "sh").join("\n");
    let tried = |line: &&str| {
        let ours = line.starts_with("kgen ") && !line.starts_with("kgen wait");
        let dnsmasq = line.starts_with("dnsmasq --test");
        (ours && !line.starts_with("kgen serve")) || dnsmasq || line.contains("--again")
    };
    let lines: Vec<&str> = commands.lines().filter(tried).collect();
    ensure!(lines.len() >= 6, "too few lines: {commands}");
    let settings = blocks(&page, "yaml");
    ensure!(settings.len() == 2, "{} settings", settings.len());
    for block in settings {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("cluster.yaml"), block)?;
        for line in &lines {
            // The second settings have one node less.
            let named = line.contains("00:12") && !block.contains("00:12");
            if !named {
                let output = sh(line, folder.path(), &programs)?;
                output.ok().with_context(|| (*line).to_owned())?;
            }
        }
        for file in ["boot.ipxe", "dnsmasq.conf", "machines.json", "served.jsonl"] {
            let path = folder.path().join("out/pxe").join(file);
            ensure!(path.exists() && page.contains(file), "{file} was not made");
        }
        built(&folder.path().join("out/pxe"), &programs.knode)?;
        let serve = "timeout --preserve-status --signal=INT 5 kgen serve --listen 127.0.0.1:0";
        let told = sh(serve, folder.path(), &programs)?;
        ensure!(told.success(), "{serve}: {}", told.stderr);
        for said in [
            " as out/pxe/catalogue.json says, Linux 6.12.48 for amd64\n",
            "kgen: documents name the knode in it: nobody downloads one\n",
        ] {
            ensure!(told.stderr.contains(said), "{said}: {}", told.stderr);
            ensure!(page.contains(said), "the page does not say: {said}");
        }
    }
    Ok(())
}

/// Images, and their catalogue as kimage itself writes it.
fn built(folder: &Path, knode: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for name in ["vmlinuz", "initrd.img"] {
        fs::write(folder.join(name), name)?;
        files.insert(name.to_owned(), Content::of(&folder.join(name))?);
    }
    let catalogue = Catalogue {
        version: 1,
        suite: "trixie".to_owned(),
        architecture: "amd64".to_owned(),
        snapshot: "2026-09-12T07:55:41Z".to_owned(),
        kernel: "6.12.48".to_owned(),
        knode: Content::of(knode)?,
        files,
        packages: BTreeMap::new(),
    };
    let text = serde_json::to_string_pretty(&catalogue)?;
    fs::write(folder.join(catalogue::NAME), text)?;
    Ok(())
}

/// The functions of all tests and all code of ours, with `fn` before them.
fn functions(folder: &Path, found: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            functions(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let lines = text.lines().filter(|line| line.contains("fn "));
            found.extend(lines.flat_map(|line| [line, "\n"]));
        }
    }
    Ok(())
}

#[test]
fn every_failure_mode_has_its_row_and_every_test_in_it_is_there() -> Result<()> {
    /// As many rows as there are kinds of failures; the next one is added here.
    const ROWS: usize = 30;
    let root = Path::new(ROOT);
    let page = fs::read_to_string(root.join("docs/failure-modes.md"))?;
    let errors = fs::read_to_string(root.join("docs/errors.md"))?;
    let mut code = String::new();
    for folder in ["agent/src", "agent/tests", "gen/src", "gen/tests", "tests"] {
        functions(&root.join(folder), &mut code)?;
    }
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| F"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    ensure!(rows.len() == ROWS, "{} rows", rows.len());
    let mut without = Vec::new();
    for (number, row) in (1..).zip(&rows) {
        let [_, name, happens, done, codes, tests, _] = row.as_slice() else {
            anyhow::bail!("not five columns: {row:?}");
        };
        ensure!(*name == format!("F{number}"), "{name} is not F{number}");
        ensure!(
            !happens.is_empty() && !done.is_empty(),
            "{name} says nothing"
        );
        let spans = |cell: &str| -> Vec<String> {
            let spans = cell.split('`').skip(1).step_by(2);
            spans.map(str::to_owned).collect()
        };
        for code in spans(codes) {
            ensure!(
                errors.contains(&format!("| `{code}` |")),
                "{name}: no {code}"
            );
        }
        for test in spans(tests) {
            let known = code.contains(&format!("fn {test}("));
            ensure!(known, "{name}: there is no test {test}");
        }
        if spans(tests).is_empty() {
            without.push(*name);
        }
    }
    ensure!(without.is_empty(), "no test is named for {without:?}");
    Ok(())
}
