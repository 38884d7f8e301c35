//! An input as a source of values. Every input is one: where it ends, zeros and empty texts follow.

pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub fn new(input: &'a [u8]) -> Source<'a> {
        Source(input)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn is_odd(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Return one of these.
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[usize::from(self.byte()) % values.len()]
    }

    /// Return a number of up to eight bytes, most often a small one.
    pub fn number(&mut self) -> i64 {
        self.bytes(8).iter().fold(0, |number, byte| (number << 8) | i64::from(*byte))
    }

    /// Return bytes, after a byte with their number.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// Return a text of at most so many bytes before its conversion to UTF-8.
    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.bytes(most)).into_owned()
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Return the first line, and what follows its end.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, b""),
    }
}
