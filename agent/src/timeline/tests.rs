use super::layout::Spot;
use super::*;
use crate::status::Failure;

fn step(
    name: &str,
    state: State,
    began: Option<f64>,
    took: Option<f64>,
    detail: &str,
) -> StepReport {
    StepReport {
        name: name.to_owned(),
        state,
        began,
        took,
        failures: u32::from(state == State::Failed),
        detail: detail.to_owned(),
        failure: (state == State::Failed).then(|| Failure {
            code: "E-FETCH-HASH".to_owned(),
            message: "fetching kubelet from http://mirror/<k>&\"x\"\u{1b}".to_owned(),
            cure: String::new(),
        }),
    }
}

fn report(ready_after: Option<f64>, steps: Vec<StepReport>) -> Report {
    Report {
        config: None,
        node: "node-1".parse().ok(),
        role: Some(Role::Node),
        version: "0.1.0".to_owned(),
        ready: ready_after.is_some(),
        ready_after,
        worked: ready_after.map(|_| 0.12),
        elapsed: 40.0,
        written: "2026-11-20T14:00:00Z".to_owned(),
        steps,
        api_servers: Vec::new(),
        services: Vec::new(),
        failure: None,
    }
}

/// A boot as it was measured, in the graph's order.
fn boot() -> Report {
    let done = |name, began, took, detail| step(name, State::Done, Some(began), Some(took), detail);
    report(
        Some(12.41),
        vec![
            done(
                "identity",
                0.004,
                0.012,
                "42 files intact, system:node:node-1 for 364 days",
            ),
            done("fetch", 0.004, 4.81, "7 artifacts, 7 fetched (213 MB)"),
            done("kernel", 0.005, 0.031, "modules and sysctls were right"),
            done("address", 0.005, 0.003, "10.0.0.11"),
            done("runtime", 0.037, 3.2, "containerd 2.1.4"),
            done(
                "network",
                0.038,
                0.044,
                "cbr0 with 10.244.1.0/24, 2 routes to peers by knode-vxlan, 14 changes made",
            ),
            done("wait", 0.017, 7.62, "https://10.0.0.10:6443 is ready"),
            done("register", 7.64, 0.08, "labels, taints and pod range"),
            done("peers", 7.64, 0.05, "3 Nodes with pod ranges"),
            done("start", 7.73, 1.1, "kubelet and kube-proxy run"),
            done("ready", 8.83, 3.58, "Ready"),
        ],
    )
}

/// Every tag is closed by its own, every text is free of `<`, `&` stands only
/// before names of characters.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        assert!(
            !text.contains('>') || open.last() == Some(&"style"),
            "{text}"
        );
        for entity in text.split('&').skip(1) {
            let name = entity.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot"].contains(&name), "{entity}");
        }
        let end = at + rest[at..].find('>').expect("a tag's end");
        let tag = &rest[at + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert!(!svg.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn a_boot_is_drawn_whole() {
    let svg = svg(&boot(), 30.0);
    assert_well_formed(&svg);
    for step in &boot().steps {
        assert!(
            svg.contains(&format!(">{}</text>", step.name)),
            "{}",
            step.name
        );
    }
    assert_eq!(svg.matches("class=\"done\"").count(), 11);
    for told in [
        "node-1 (node): Ready after 12.4 s",
        "17.6 s within the budget of 30 s",
        ">4.8 s<tspan",
        ">12 ms<tspan",
        "Ready 12.4 s",
        "2 routes to peers by knode-vxlan, 14 changes made</title>",
    ] {
        assert!(svg.contains(told), "{told}");
    }
    // The waterfall is in the order of time: what began first is first.
    assert!(svg.find(">runtime</text>") > svg.find(">wait</text>"));
    // A budget far away is no line.
    assert!(!svg.contains("class=\"budget\""));
    assert!(super::svg(&boot(), 10.0).contains("2.4 s over the budget of 10 s"));
    assert!(super::svg(&boot(), 10.0).contains("class=\"budget\""));
}

#[test]
fn failing_running_and_waiting_steps_are_marked() {
    let svg = svg(
        &report(
            None,
            vec![
                step("fetch", State::Failed, Some(0.1), None, ""),
                step(
                    "runtime",
                    State::Running,
                    Some(2.0),
                    None,
                    "waiting for <containerd> & co",
                ),
                step("start", State::Pending, None, None, ""),
            ],
        ),
        30.0,
    );
    assert_well_formed(&svg);
    assert!(svg.contains("not Ready: fetch fails, E-FETCH-HASH"));
    assert!(svg.contains("10 s over the budget of 30 s so far"));
    assert_eq!(svg.matches("class=\"failing\"").count(), 1);
    assert!(svg.contains("class=\"running\"") && svg.contains("38 s so far"));
    assert!(svg.contains("&lt;containerd&gt; &amp; co"));
    assert!(svg.contains("waits for those before it"));
    // The boot has lasted longer than it should: that is to be seen.
    assert!(svg.contains("class=\"budget\""));
}

#[test]
fn odd_reports_are_drawn_as_well() {
    assert_well_formed(&svg(&report(None, Vec::new()), 30.0));
    let odd = vec![
        step("a", State::Done, Some(0.0), Some(0.0), ""),
        step(
            "b",
            State::Done,
            Some(f64::MAX),
            Some(f64::MAX),
            &"ä".repeat(500),
        ),
    ];
    assert_well_formed(&svg(&report(Some(1e300), odd), 1e300));
}

#[test]
fn seconds_have_the_digits_that_matter() {
    for (at, told) in [
        (0.0, "0"),
        (0.004, "4 ms"),
        (0.5, "500 ms"),
        (0.9999, "1 s"),
        (2.0, "2 s"),
        (12.41, "12.4 s"),
        (312.4, "312 s"),
    ] {
        assert_eq!(seconds(at), told);
    }
}

#[test]
fn texts_stay_within_the_picture() {
    let spot = |x, anchor| Spot {
        x,
        anchor,
        inside: false,
    };
    assert_eq!(place(100.0, 200.0, 50.0, 90.0, 300.0), spot(208.0, "start"));
    assert_eq!(place(200.0, 290.0, 50.0, 90.0, 300.0), spot(192.0, "end"));
    let inside = Spot {
        inside: true,
        ..spot(108.0, "start")
    };
    assert_eq!(place(100.0, 290.0, 50.0, 90.0, 300.0), inside);
    assert_eq!(shorten("abc def", 5), "abc…");
}

/// For looking at: `KNODE_TIMELINE=FILE cargo test -p knode timeline`.
#[test]
fn the_picture_can_be_looked_at() {
    if let Some(path) = std::env::var_os("KNODE_TIMELINE") {
        std::fs::write(path, svg(&boot(), 10.0)).unwrap();
    }
}
