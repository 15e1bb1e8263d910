//! Tables as text for terminals, as Markdown and as CSV.

use std::fmt::Write;

/// Columns and rows of text.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Table {
    /// Headings.
    pub columns: Vec<String>,
    /// As many cells a row as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has another number of cells than the table has columns.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        assert_eq!(row.len(), self.columns.len(), "{row:?} in {:?}", self.columns);
        self.rows.push(row);
    }

    /// Columns lined up; the first to the left, the others to the right.
    pub fn to_text(&self) -> String {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = if index == 0 {
                    write!(line, "{cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// A Markdown table.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = line(&self.columns);
        let _ = writeln!(text, "|{}", "---|".repeat(self.columns.len()));
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }

    /// CSV; a cell with a comma, a quote or a line break is quoted.
    pub fn to_csv(&self) -> String {
        let cell = |cell: &String| {
            if cell.contains([',', '"', '\n']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        };
        let line = |row: &Vec<String>| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n";
        std::iter::once(&self.columns).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["student", "right"]);
        table.push(["base".to_owned(), "48 %".to_owned()]);
        table.push(["of \"it\", a|b".to_owned(), "9 %".to_owned()]);
        table
    }

    #[test]
    fn three_ways_to_write_a_table() {
        assert_eq!(table().to_text(), "student       right\nbase           48 %\nof \"it\", a|b    9 %\n");
        assert_eq!(
            table().to_markdown(),
            "| student | right |\n|---|---|\n| base | 48 % |\n| of \"it\", a\\|b | 9 % |\n"
        );
        assert_eq!(table().to_csv(), "student,right\nbase,48 %\n\"of \"\"it\"\", a|b\",9 %\n");
    }

    #[test]
    #[should_panic(expected = "in [\"student\", \"right\"]")]
    fn a_row_has_a_cell_for_each_column() {
        table().push(["alone".to_owned()]);
    }
}
