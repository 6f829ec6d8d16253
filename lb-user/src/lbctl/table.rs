//! Text in aligned columns, with colours that do not disturb the alignment.

/// Between two columns.
const GAP: &str = "  ";

/// How a cell is painted, if colours are wanted at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    /// As the terminal writes.
    #[default]
    Plain,
    /// All is well: green.
    Good,
    /// Worth a look: yellow.
    Warn,
    /// Wrong: red.
    Bad,
}

impl Paint {
    /// The text as it goes to the terminal.
    fn on(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Good if colour => 32,
            Self::Warn if colour => 33,
            Self::Bad if colour => 31,
            _ => return text.to_owned(),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A field with a colour. Control characters are replaced: a terminal must not obey a name.
    #[must_use]
    pub fn new(text: impl AsRef<str>, paint: Paint) -> Self {
        let text = text.as_ref().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { text, paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Paint::Plain)
    }
}

/// On which side a column's fields begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows whose columns are aligned with each other. Lines are rendered one by one, so that those of two
/// tables can alternate.
#[derive(Clone, Debug)]
pub struct Table {
    indent: usize,
    columns: Vec<(Align, usize)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with one row, its heads. `indent` is the number of spaces before each line.
    #[must_use]
    pub fn new(indent: usize, heads: &[(&str, Align)]) -> Self {
        let columns = heads.iter().map(|&(_, align)| (align, 0)).collect();
        let mut table = Self { indent, columns, rows: Vec::new() };
        table.push(heads.iter().map(|&(head, _)| Cell::from(head)).collect());
        table
    }

    /// Adds a row; gives its number for [`Self::line`]. Row 0 holds the heads.
    pub fn push(&mut self, row: Vec<Cell>) -> usize {
        for ((_, width), cell) in self.columns.iter_mut().zip(&row) {
            *width = cell.width().max(*width);
        }
        self.rows.push(row);
        self.rows.len() - 1
    }

    /// Has the last `tail` columns of both tables begin at the same place and be equally wide.
    pub fn align_tail(&mut self, other: &mut Self, tail: usize) {
        let (left, right) = (self.columns.len() - tail, other.columns.len() - tail);
        for (ours, theirs) in self.columns[left..].iter_mut().zip(&mut other.columns[right..]) {
            let width = ours.1.max(theirs.1);
            (ours.1, theirs.1) = (width, width);
        }
        let (begin, end) = (self.begin(left), other.begin(right));
        self.columns[left - 1].1 += end.saturating_sub(begin);
        other.columns[right - 1].1 += begin.saturating_sub(end);
    }

    /// Where a column begins.
    fn begin(&self, column: usize) -> usize {
        self.indent + self.columns[..column].iter().map(|(_, width)| width + GAP.len()).sum::<usize>()
    }

    /// One line, ended by a newline.
    #[must_use]
    pub fn line(&self, row: usize, colour: bool) -> String {
        let mut line = " ".repeat(self.indent);
        let last = self.columns.len().saturating_sub(1);
        for (index, (&(align, width), cell)) in self.columns.iter().zip(&self.rows[row]).enumerate() {
            let gap = " ".repeat(width - cell.width());
            let text = cell.paint.on(&cell.text, colour);
            match align {
                Align::Right => line += &(gap + &text),
                Align::Left => line += &(text + &gap),
            }
            if index != last {
                line += GAP;
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(1, &[("NAME", Align::Left), ("N", Align::Right), ("NOTE", Align::Left)]);
        table.push(vec!["a".into(), "1".into(), "".into()]);
        table.push(vec!["väldigt".into(), "100".into(), Cell::new("bad", Paint::Bad)]);
        table
    }

    fn text(colour: bool) -> String {
        let table = table();
        (0..3).map(|row| table.line(row, colour)).collect()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(text(false), " NAME       N  NOTE\n a          1\n väldigt  100  bad\n");
    }

    #[test]
    fn tails_of_two_tables_are_aligned_whichever_is_wider() {
        let heads = |head| [(head, Align::Left), ("N", Align::Right), ("", Align::Left)];
        for (left, right, lines) in [
            ("LEFT SIDE", "R", ["LEFT SIDE   N\n", "  R         N\n", "  r        10\n"]),
            ("L", "RIGHT SIDE", ["L              N\n", "  RIGHT SIDE   N\n", "  r           10\n"]),
        ] {
            let mut first = Table::new(0, &heads(left));
            let mut second = Table::new(2, &heads(right));
            let row = second.push(vec!["r".into(), "10".into(), "".into()]);
            first.align_tail(&mut second, 2);
            assert_eq!([first.line(0, false), second.line(0, false), second.line(row, false)], lines);
        }
    }

    #[test]
    fn colours_change_nothing_else() {
        let coloured = text(true);
        assert!(coloured.contains("\x1b[31mbad\x1b[0m\n"));
        assert_eq!(coloured.replace("\x1b[31m", "").replace("\x1b[0m", ""), text(false));
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(Cell::from("a\x1b[2Jb\nc").text, "a?[2Jb?c");
    }
}
