//! Tables, and what is left of other people's text on a terminal.

use std::io::IsTerminal;

/// Text that somebody else wrote, on one line and without what a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Rows under a heading, each column as wide as it has to be.
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A cell that says nothing is shown as `-`, so that columns can be counted.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let cells = cells.into_iter().map(|cell| match clean(&cell) {
            empty if empty.is_empty() => "-".into(),
            cell => cell,
        });
        self.rows.push(cells.collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Each line with its end.
    pub(crate) fn lines(&self) -> Vec<String> {
        let heading = self.heading.iter().map(|cell| (*cell).to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = all.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.heading.len()).map(width).collect();
        let line = |row: &&Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join("   ").trim_end().to_owned()
        };
        all.iter().map(line).collect()
    }

    /// The whole of it; `nothing` if it has no row.
    pub(crate) fn text(&self, nothing: &str) -> String {
        if self.is_empty() {
            return format!("{nothing}\n");
        }
        self.lines().join("\n") + "\n"
    }
}

/// Colour, or none.
#[derive(Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Only on a terminal, and not with NO_COLOR.
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    pub(crate) fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Green if all is well, red if not.
    pub(crate) fn judged(self, text: &str, well: bool) -> String {
        self.with(if well { "32" } else { "31" }, text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A page without colour.
#[cfg(test)]
pub(crate) const PLAIN: Paint = Paint(false);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(vec!["documents".into(), "1Gi".into()]);
        table.row(vec!["ß".into(), String::new()]);
        assert_eq!(
            table.lines(),
            ["NAME        SIZE", "documents   1Gi", "ß           -"]
        );
    }

    #[test]
    fn a_table_without_rows_says_so() {
        assert_eq!(Table::new(&["NAME"]).text("No locks."), "No locks.\n");
    }

    #[test]
    fn others_text_commands_no_terminal() {
        assert_eq!(clean(" a\x1b[31m\nb\t"), "a [31m b");
    }

    #[test]
    fn colour_is_left_out_where_it_is_not_wanted() {
        assert_eq!(PLAIN.heading("x"), "x");
        assert_eq!(Paint(true).judged("x", true), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint(true).judged("x", false), "\x1b[31mx\x1b[0m");
    }
}
