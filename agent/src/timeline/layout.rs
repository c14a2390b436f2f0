//! Where things go in the picture: the axis of seconds, and room for text.

/// The seconds from the agent's start, laid out from left to right.
pub struct Axis {
    end: f64,
    left: f64,
    right: f64,
    step: f64,
}

impl Axis {
    /// An axis on which everything up to `last` seconds has room, and a tick
    /// at every 1, 2 or 5 of some power of ten.
    pub fn new(last: f64, left: f64, right: f64) -> Self {
        let last = last.clamp(0.1, 1e9);
        let rough = last / 8.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|n| n * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        Self {
            end: last * 1.02,
            left,
            right,
            step,
        }
    }

    /// Where a second is.
    pub fn x(&self, at: f64) -> f64 {
        let share = (at / self.end).clamp(0.0, 1.0);
        self.left + share * (self.right - self.left)
    }

    /// Whether the axis reaches so far.
    pub fn holds(&self, at: f64) -> bool {
        at <= self.end
    }

    /// The ticks: where, and what they say.
    pub fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        // At most ten steps of at least an eighth of the length.
        (0..=10_u32)
            .map(|n| f64::from(n) * self.step)
            .filter(|at| self.holds(*at))
            .map(|at| (self.x(at), seconds(at)))
    }
}

/// Seconds with as many digits as one can tell apart.
pub fn seconds(at: f64) -> String {
    if at == 0.0 {
        return "0".to_owned();
    }
    if at < 0.9995 {
        return format!("{:.0} ms", at * 1000.0);
    }
    let text = if at < 99.95 {
        format!("{at:.1}")
    } else {
        format!("{at:.0}")
    };
    format!("{} s", text.trim_end_matches(".0"))
}

/// About how wide a text is: the picture cannot ask the viewer's font.
pub fn width(text: &str) -> f64 {
    text.chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | ' ' | '\'' | '|' | 't' | 'f' | 'r' => 4.2,
            'm' | 'w' | 'M' | 'W' => 10.0,
            c if c.is_ascii_uppercase() => 8.2,
            _ => 7.0,
        })
        .sum()
}

/// At most so many characters, with a sign of what is left out.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// Where a bar's text begins or ends.
#[derive(Debug, PartialEq)]
pub struct Spot {
    pub x: f64,
    pub anchor: &'static str,
    /// Whether it is in the bar.
    pub inside: bool,
}

/// Behind the bar where there is room, else before it, else in it.
pub fn place(from: f64, to: f64, width: f64, left: f64, right: f64) -> Spot {
    const GAP: f64 = 8.0;
    if to + GAP + width <= right {
        return Spot {
            x: to + GAP,
            anchor: "start",
            inside: false,
        };
    }
    if from - GAP - width >= left {
        return Spot {
            x: from - GAP,
            anchor: "end",
            inside: false,
        };
    }
    Spot {
        x: from + GAP,
        anchor: "start",
        inside: true,
    }
}
