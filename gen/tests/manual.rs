//! `kgen completions` and `kgen man`, in the hands of shells and readers.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Folder, skip};

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[test]
fn every_shell_has_completions() {
    let folder = Folder::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = folder.user_data(&["completions", shell]);
        for word in ["render", "validate", "kubeconfig", "platform"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    let output = folder.kgen().args(["completions", "cmd"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(folder.tree().is_empty());
}

#[test]
fn bash_completes_words() {
    let folder = Folder::empty();
    folder.write("kgen.bash", &folder.user_data(&["completions", "bash"]));
    let complete = |words: &str| {
        let script = format!(
            ". ./kgen.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _kgen kgen \"${{COMP_WORDS[$COMP_CWORD]}}\" kgen; echo \"${{COMPREPLY[*]}}\""
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &script])
            .current_dir(folder.path(""))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && told.is_empty(),
            "{words}: {told}"
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(complete("kgen rend"), "render");
    assert_eq!(complete("kgen render --pl"), "--platform");
    assert_eq!(complete("kgen certs re"), "renew");
}

#[test]
fn manual_pages_are_written_and_read() {
    let folder = Folder::empty();
    folder.run(&["man", "man1"]);
    let tree = folder.tree();
    for page in [
        "kgen",
        "kgen-render",
        "kgen-certs",
        "kgen-certs-check",
        "kgen-validate",
    ] {
        let (bytes, mode) = &tree[&format!("man1/{page}.1")];
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(&format!(".TH {page} 1")), "{text}");
        assert_eq!(*mode, 0o644);
    }
    assert!(
        !tree.keys().any(|page| page.contains("help")),
        "{:?}",
        tree.keys()
    );
    // Again, with nothing to do.
    let told = String::from_utf8(folder.run(&["man", "man1"]).stderr).unwrap();
    assert!(told.starts_with("kgen: wrote 0 pages"), "{told}");
    assert_eq!(folder.tree(), tree);
    if !installed("groff") {
        return skip(
            "manual_pages_are_written_and_read",
            "no groff here to read them",
        );
    }
    for page in tree.keys().filter(|page| page.ends_with(".1")) {
        let output = Command::new("groff")
            .args(["-man", "-Tascii", "-ww"])
            .arg(Path::new(&folder.path(page)))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{page}: {told}");
    }
}
