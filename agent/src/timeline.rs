//! `knode timeline`: the boot as a picture (B11).
//!
//! [`svg`] draws a [`Report`]: one row a step, in the order in which they
//! began, with the seconds from the agent's start. The picture needs nothing
//! from elsewhere, and follows its viewer's light or dark theme.

mod layout;

use self::layout::{Axis, place, seconds, shorten, width};
use crate::status::{Report, State, StepReport};
use units::types::{NodeName, Role};

/// All lengths are in pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = WIDTH - 24.0;
const HEAD: f64 = 92.0;
const ROW: f64 = 28.0;
const BAR: f64 = 16.0;
const FOOT: f64 = 44.0;
/// The most characters of a step's detail in the picture; all of it is in the
/// bar's tooltip.
const DETAIL: usize = 64;
/// The same of a failure.
const FAILURE: usize = 96;

/// Mid-tones for what has to be seen on either ground; the rest is chosen for each.
const STYLE: &str = "\
text{font-family:system-ui,'Segoe UI','Helvetica Neue',Arial,sans-serif;font-size:12px;fill:#24292f}
.ground{fill:#ffffff}.stripe{fill:#f3f5f7}.grid{stroke:#d8dee4;stroke-width:1}
.title{font-size:17px;font-weight:600}.faint{fill:#656d76}.name{font-weight:600}
.number{font-variant-numeric:tabular-nums}
.done{fill:#3f8fbf}.running{fill:#3f8fbf;fill-opacity:.35;stroke:#3f8fbf;stroke-dasharray:4 3}
.failed{fill:#d1495b}.failing{fill:#d1495b;fill-opacity:.3;stroke:#d1495b;stroke-dasharray:4 3}.bad{fill:#c43b4e;font-weight:600}
.onbar{fill:#ffffff}
.ready{stroke:#3a9d5d;stroke-width:2}.readytext{fill:#2f8a4f;font-weight:600}
.budget{stroke:#c98a1b;stroke-width:1.5;stroke-dasharray:6 4}.budgettext{fill:#a8710f}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.stripe{fill:#151b23}
.grid{stroke:#30363d}.faint{fill:#9198a1}.bad{fill:#ef6f7f}.readytext{fill:#56c57c}.budgettext{fill:#dba94a}}
";

/// The boot as an SVG document. `budget` are the seconds within which the
/// machine should be Ready.
pub fn svg(report: &Report, budget: f64) -> String {
    let mut steps: Vec<&StepReport> = report.steps.iter().collect();
    let began = |step: &&StepReport| step.began.unwrap_or(f64::INFINITY);
    steps.sort_by(|a, b| began(a).total_cmp(&began(b)));
    let now = end(report);
    let axis = Axis::new(now, LEFT, RIGHT);
    let rows = HEAD + ROW * count(steps.len());
    let height = rows + FOOT;
    let summary = escape(&headline(report));

    let mut out = String::new();
    let mut put = |text: String| out.push_str(&text);
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{summary}\">\n\
         <style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"24\" y=\"34\">{summary}</text>\n\
         <text class=\"faint\" x=\"24\" y=\"54\">{}</text>\n",
        escape(&subline(report, budget))
    ));
    put(grid(&axis, steps.len(), rows));
    put(marks(report, budget, &axis, rows));
    for (number, step) in steps.iter().enumerate() {
        put(row(step, HEAD + ROW * count(number), &axis, now));
    }
    put("</svg>\n".to_owned());
    out
}

/// A small number as a length.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

/// The second at which the picture ends.
fn end(report: &Report) -> f64 {
    let ends = report
        .steps
        .iter()
        .filter_map(|step| Some(step.began? + step.took.unwrap_or(0.0)));
    let busy = report
        .steps
        .iter()
        .any(|step| step.began.is_some() && step.took.is_none());
    let now = if busy { report.elapsed } else { 0.0 };
    ends.chain(report.ready_after).fold(now, f64::max)
}

fn headline(report: &Report) -> String {
    let name = report
        .node
        .as_ref()
        .map_or("this machine", NodeName::as_str);
    let role = report.role.map_or("no role yet", Role::as_str);
    let state = match (report.ready, report.ready_after, report.first_failure()) {
        (true, Some(after), _) => format!("Ready after {}", seconds(after)),
        (_, _, Some((step, failure))) => format!("not Ready: {step} fails, {}", failure.code),
        (_, Some(after), None) => format!("not Ready any more; was after {}", seconds(after)),
        (_, None, None) => "not Ready yet".to_owned(),
    };
    format!("{name} ({role}): {state}")
}

fn subline(report: &Report, budget: f64) -> String {
    let (after, so_far) = match report.ready_after {
        Some(after) => (after, ""),
        None => (report.elapsed, " so far"),
    };
    let side = if after <= budget { "within" } else { "over" };
    let by = seconds((budget - after).abs());
    let verdict = format!("{by} {side} the budget of {}{so_far}", seconds(budget));
    let worked = report.worked.map(seconds);
    let worked = worked.map_or(String::new(), |time| format!(" · knode itself {time}"));
    format!(
        "{verdict}{worked} · seconds since knode {} started · {}",
        report.version, report.written
    )
}

/// Stripes behind every other row, and a line with its second at each tick.
fn grid(axis: &Axis, rows: usize, bottom: f64) -> String {
    let mut out = String::new();
    for number in (0..rows).step_by(2) {
        let y = HEAD + ROW * count(number);
        line(
            &mut out,
            &format!(
                "<rect class=\"stripe\" x=\"12\" y=\"{y}\" width=\"{}\" height=\"{ROW}\" rx=\"4\"/>",
                WIDTH - 24.0
            ),
        );
    }
    for (x, label) in axis.ticks() {
        line(
            &mut out,
            &format!(
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"faint number\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                HEAD - 4.0,
                bottom + 18.0
            ),
        );
    }
    out
}

fn row(step: &StepReport, y: f64, axis: &Axis, now: f64) -> String {
    let base = y + ROW / 2.0 + 4.0;
    let failed = step.state == State::Failed;
    let name_class = if failed { "bad" } else { "name" };
    let mut out = format!(
        "<text class=\"{name_class}\" x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>\n",
        LEFT - 12.0,
        escape(&step.name)
    );
    let Some(began) = step.began else {
        line(
            &mut out,
            &format!(
                "<text class=\"faint\" x=\"{}\" y=\"{base}\">waits for those before it</text>",
                LEFT + 8.0
            ),
        );
        return out;
    };
    let (class, end) = match (step.took, failed) {
        (Some(took), false) => ("done", began + took),
        (Some(took), true) => ("failed", began + took),
        (None, false) => ("running", now),
        (None, true) => ("failing", now),
    };
    let (from, to) = (axis.x(began), axis.x(end).max(axis.x(began) + 2.0));
    let time = match (step.took, failed) {
        (Some(took), _) => seconds(took),
        (None, _) => format!("{} so far", seconds(end - began)),
    };
    let told = step.failure.as_ref().filter(|_| failed);
    let detail = told.map_or(step.detail.clone(), |f| {
        format!("{}: {}", f.code, f.message)
    });
    let tip = escape(&format!(
        "{}: from {}, {time}: {detail}",
        step.name,
        seconds(began)
    ));
    line(
        &mut out,
        &format!(
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"3\"><title>{tip}</title></rect>",
            y + (ROW - BAR) / 2.0,
            to - from
        ),
    );
    let detail = shorten(&detail, if failed { FAILURE } else { DETAIL });
    let spot = place(from, to, width(&time) + width(&detail) + 10.0, LEFT, RIGHT);
    // What stands in a bar has to be told from the bar's own colour.
    let (text_class, detail_class) = match (spot.inside, step.took, failed) {
        (true, Some(_), _) => ("number onbar", "onbar"),
        (true, None, _) => ("number", ""),
        (false, _, true) => ("number", "bad"),
        (false, _, false) => ("number", "faint"),
    };
    let gap = if detail.is_empty() { "" } else { " dx=\"8\"" };
    line(
        &mut out,
        &format!(
            "<text class=\"{text_class}\" x=\"{:.1}\" y=\"{base}\" text-anchor=\"{}\">{time}<tspan class=\"{detail_class}\"{gap}>{}</tspan></text>",
            spot.x,
            spot.anchor,
            escape(&detail)
        ),
    );
    out
}

/// When the machine was Ready, and when it should have been.
fn marks(report: &Report, budget: f64, axis: &Axis, bottom: f64) -> String {
    let mut out = String::new();
    let mut mark = |at: f64, class: &str, label: String| {
        let x = axis.x(at);
        let anchor = if x > (LEFT + RIGHT) / 2.0 {
            "end"
        } else {
            "start"
        };
        line(
            &mut out,
            &format!(
                "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"{class}text\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
                HEAD - 8.0,
                HEAD - 14.0
            ),
        );
    };
    // A budget far beyond the boot is told in words alone: its line would push
    // all bars together.
    if axis.holds(budget) {
        mark(budget, "budget", format!("budget {}", seconds(budget)));
    }
    if let Some(after) = report.ready_after {
        mark(after, "ready", format!("Ready {}", seconds(after)));
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Text as XML takes it; what XML has no way to write becomes a blank.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
