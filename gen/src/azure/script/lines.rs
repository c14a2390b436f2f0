//! Commands of a shell script.

/// Lines of a script; every word of a command is quoted where it has to be.
#[derive(Debug, Default)]
pub struct Lines(String);

/// A word of a command.
#[derive(Debug)]
pub enum Word {
    /// As it is, in quotes where the shell would see more in it.
    Plain(String),
    /// What the shell is to put in: variables and text, between double quotes.
    Variable(String),
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl From<&String> for Word {
    fn from(text: &String) -> Self {
        Self::Plain(text.clone())
    }
}

impl Word {
    fn text(&self) -> String {
        match self {
            Self::Plain(text) => quoted(text),
            Self::Variable(text) => format!("\"{text}\""),
        }
    }
}

/// A command, `az` and its group left out: words are added one by one.
#[derive(Debug)]
pub struct Command(Vec<Word>);

impl Command {
    /// A command of these words.
    pub fn new(words: &str) -> Self {
        Self(words.split(' ').map(Word::from).collect())
    }

    /// An option and its value.
    pub fn with(mut self, option: &str, value: impl Into<Word>) -> Self {
        self.0.push(option.into());
        self.0.push(value.into());
        self
    }

    /// An option and its values.
    pub fn with_all<W: Into<Word>>(
        mut self,
        option: &str,
        values: impl IntoIterator<Item = W>,
    ) -> Self {
        self.0.push(option.into());
        self.0.extend(values.into_iter().map(Into::into));
        self
    }

    /// An option alone.
    pub fn flag(mut self, option: &str) -> Self {
        self.0.push(option.into());
        self
    }

    /// The words, an option with its values a line.
    fn text(&self, indent: &str) -> String {
        let mut text = String::new();
        for (i, word) in self.0.iter().enumerate() {
            let option = matches!(word, Word::Plain(text) if text.starts_with("--"));
            match (i, option) {
                (0, _) => {}
                (_, true) => text.push_str(&format!(" \\\n{indent}    ")),
                (_, false) => text.push(' '),
            }
            text.push_str(&word.text());
        }
        text
    }
}

impl Lines {
    /// An empty line and a comment.
    pub fn part(&mut self, comment: &str) {
        self.0.push_str(&format!("\n# {comment}\n"));
    }

    /// A line as it is.
    pub fn raw(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A command that may be run again, and says `what`.
    pub fn make(&mut self, what: &str, command: &Command) {
        let text = command.text("");
        self.0.push_str(&format!("make {} {text}\n", quoted(what)));
    }

    /// A command for something that `list` does not list yet.
    pub fn once(&mut self, what: &str, name: &str, list: &Command, command: &Command) {
        let (list, text) = (list.text("    "), command.text("    "));
        self.0.push_str(&format!(
            "if ! have {} {list}; then\n    make {} {text}\nfi\n",
            quoted(name),
            quoted(what)
        ));
    }

    /// A command for something that `list` still lists.
    pub fn while_there(&mut self, what: &str, name: &str, list: &Command, command: &Command) {
        let (list, text) = (list.text("    "), command.text("    "));
        self.0.push_str(&format!(
            "if have {} {list}; then\n    make {} {text}\nfi\n",
            quoted(name),
            quoted(what)
        ));
    }

    /// The script.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A word that a shell takes as it is.
pub fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:,=@%+".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_sees_the_words_that_were_meant() {
        for word in [
            "a",
            "it's",
            "$HOME `x` \"y\"",
            "",
            "*",
            "a b",
            "~",
            "[0]",
            "\\",
        ] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
