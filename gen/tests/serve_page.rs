//! docs/pxe.md says what lines about requests mean. (P53)

/// What writes them.
const SOURCES: [&str; 5] = [
    include_str!("../src/serve/answer.rs"),
    include_str!("../src/serve/body.rs"),
    include_str!("../src/serve/ledger.rs"),
    include_str!("../src/serve/mod.rs"),
    include_str!("../src/serve/table.rs"),
];

#[test]
fn words_of_lines_that_are_on_the_page_are_written() {
    let page = include_str!("../../docs/pxe.md");
    let (_, section) = page.split_once("\n### Who asked for what\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let mut words = 0;
    for row in rows {
        let cell = row.split('|').nth(2).unwrap();
        for span in cell.split('`').skip(1).step_by(2) {
            for part in span.split('…').map(str::trim).filter(|p| !p.is_empty()) {
                let written = SOURCES.iter().any(|source| source.contains(part));
                assert!(written, "nothing says {part:?}: {row}");
                words += 1;
            }
        }
    }
    assert!(words >= 12, "only {words}");
}
