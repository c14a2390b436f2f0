//! Whatever is typed, there is an answer: settings or findings with places.

use kgen::artifacts::Lock;
use kgen::format::Format;
use kgen::lint;
use kgen::report::{Report, Source};
use kgen::settings;
use proptest::prelude::*;

/// Pieces of settings, and of what is not.
const PIECES: &[&str] = &[
    "nodes",
    "name",
    "role",
    "master",
    "network",
    "podCIDR",
    "10.244.0.0/16",
    "fd00::/48",
    ": ",
    ":",
    "\n",
    "\n  ",
    "\n- ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "é",
    "日本",
    "\u{feff}",
    "\"",
    "'",
    "|\n",
    ">\n",
    "&a ",
    "*a",
    "<<",
    "!x ",
    "!!str ",
    "#",
    "---\n",
    "...\n",
    "\t",
    "\r\n",
    "~",
    "kubelet",
    "config",
    "0644",
    "yes",
    "version: 1\n",
    "artifacts",
    "sha256",
    "labels",
    "%",
    "?",
];

/// Pieces of documents.
const DOCUMENT: &[&str] = &[
    "#cloud-config\n",
    "{\"ignition\":{\"version\":\"3.3.0\"},\"storage\":{\"files\":[{",
    "\"path\":\"/a\",",
    "\"mode\":644,",
    "\"contents\":{\"source\":\"data:,%",
    "\"contents\":{\"source\":\"data:;base64,AA",
    "\"compression\":\"gzip\"",
    "}]}}",
    "]}",
    "\"systemd\":{\"units\":[{\"name\":\"a.service\",\"contents\":\"",
    "\\n",
    "write_files:\n",
    "- path: /etc/systemd/system/a.service\n",
    "  content: ",
    "  encoding: gz+b64\n",
    "  permissions: ",
    "  owner: ",
    "coreos:\n  units:\n  - name: a.service\n    enable: true\n    content: |\n",
    "      [Service]\n",
    "      ExecStart=/a $",
    "%",
    "${",
    "\\\n",
    "runcmd:\n",
    "- [systemctl, enable, --now, a.service]\n",
    "- systemctl start a\n",
    "$private_ipv4",
    "## template: jinja\n",
    "{{",
    "\"",
    "é",
    "0644",
    "\n",
];

fn answered(result: Result<(), Report>) {
    if let Err(report) = result {
        assert!(!report.is_empty());
        for colour in [true, false] {
            assert!(report.render(colour).contains("finding"));
        }
    }
}

fn ask(text: &str) {
    let source = Source::new("f.yaml", text);
    answered(settings::load(&source).map(drop));
    answered(Lock::load(&source).map(drop));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_of_settings(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        ask(&pieces.concat());
    }

    #[test]
    fn pieces_of_documents(pieces in proptest::collection::vec(proptest::sample::select(DOCUMENT), 0..25)) {
        let source = Source::new("doc", pieces.concat());
        for format in Format::ALL {
            let report = lint::document(&source, format);
            let rendered = report.render(false);
            prop_assert_eq!(report.is_empty(), rendered.is_empty());
        }
        lint::language(source.text());
    }

    #[test]
    fn any_text(text in "\\PC{0,80}") {
        ask(&text);
    }

    #[test]
    fn settings_with_a_hole(at in 0usize..400, len in 0usize..20, with in "\\PC{0,5}") {
        let mut text = "name: é\nnodes:\n- {name: m, role: master, address: 10.0.0.1}\n\
            - name: n\n  role: node\n  labels: {a: b}\n  taints:\n  - {key: é, effect: NoSchedule}\n\
            network:\n  podCIDRs: [10.244.0.0/16]\n".to_owned();
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        let start = chars[at % chars.len()].0;
        let end = chars.get(at % chars.len() + len).map_or(text.len(), |c| c.0);
        text.replace_range(start..end, &with);
        ask(&text);
    }
}
