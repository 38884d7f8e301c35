//! The mutation of inputs: bytes changed, removed, repeated and taken from other entries; words of the target and edge
//! numbers put in. The same seed and pool make the same inputs.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longest input that is made.
const LONGEST: usize = 4096;
/// Longest piece that one step removes, repeats or copies.
const LONGEST_PIECE: usize = 64;
/// Steps between an entry and its mutation.
const MAX_STEPS: usize = 5;
/// Entries that were added last are chosen as often as all together.
const NEWEST: usize = 32;

const NUMBERS: [&str; 20] = [
    "0",
    "-1",
    "1",
    "7",
    "10",
    "30",
    "31",
    "127",
    "128",
    "255",
    "256",
    "551",
    "600",
    "601",
    "1000",
    "2001",
    "65536",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
];

/// Bytes and characters on which readers of every kind stumble.
const COMMON: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc2\x85",
    b"\xe2\x80\x8b",
    b"\xc2\xa0",
    b"\xf0\x9f\x98\x80",
    b"\xc3",
    b"\r\n",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"\"",
    b"\\",
    b"'",
    b",",
    b";",
    b"%00",
    b"\\u0000",
    b"\\ud800",
    b"1e9",
    b"1.5",
];

pub struct Mutator {
    random: StdRng,
    words: &'static [&'static str],
}

impl Mutator {
    pub fn new(seed: u64, words: &'static [&'static str]) -> Mutator {
        Mutator { random: StdRng::seed_from_u64(seed), words }
    }

    /// Return a mutation of an entry of the pool, which is not empty.
    pub fn mutated(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.chosen(pool).to_vec();
        for _ in 0..self.random.random_range(1..=MAX_STEPS) {
            let other = self.chosen(pool);
            self.step(&mut input, other);
        }
        input.truncate(LONGEST);
        input
    }

    fn chosen<'p>(&mut self, pool: &'p [Vec<u8>]) -> &'p [u8] {
        let newest = pool.len().saturating_sub(NEWEST);
        let from = if self.random.random_bool(0.5) { newest } else { 0 };
        &pool[self.random.random_range(from..pool.len())]
    }

    fn step(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        match self.random.random_range(0..9) {
            0 => self.change_byte(input),
            1 => {
                let range = self.piece(input.len());
                input.drain(range);
            }
            2 => {
                let copy = input[self.piece(input.len())].to_vec();
                self.insert(input, &copy);
            }
            3 => {
                let copy = &other[self.piece(other.len())];
                self.insert(input, copy);
            }
            4 => {
                // The beginning of one and the end of another.
                input.truncate(self.place(input.len()));
                input.extend_from_slice(&other[self.place(other.len())..]);
            }
            5 => self.change_number(input),
            6 => {
                let range = self.piece(input.len());
                let place = range.start;
                input.drain(range);
                let word = self.word();
                input.splice(place..place, word.iter().copied()).for_each(drop);
            }
            _ => {
                let word = self.word();
                self.insert(input, word);
            }
        }
    }

    fn change_byte(&mut self, input: &mut [u8]) {
        if input.is_empty() {
            return;
        }
        let place = self.random.random_range(0..input.len());
        if self.random.random_bool(0.5) {
            input[place] ^= 1_u8 << self.random.random_range(0..8_u32);
        } else {
            input[place] = self.random.random::<u8>();
        }
    }

    /// Put an edge number in the place of a number.
    fn change_number(&mut self, input: &mut Vec<u8>) {
        let starts = starts_of_numbers(input);
        let number = NUMBERS[self.random.random_range(0..NUMBERS.len())];
        if starts.is_empty() {
            return self.insert(input, number.as_bytes());
        }
        let start = starts[self.random.random_range(0..starts.len())];
        let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        input.splice(start..start + digits, number.bytes()).for_each(drop);
    }

    fn insert(&mut self, input: &mut Vec<u8>, piece: &[u8]) {
        let place = self.place(input.len());
        input.splice(place..place, piece.iter().copied()).for_each(drop);
    }

    fn word(&mut self) -> &'static [u8] {
        let place = self.random.random_range(0..self.words.len() + COMMON.len());
        match self.words.get(place) {
            Some(word) => word.as_bytes(),
            None => COMMON[place - self.words.len()],
        }
    }

    fn place(&mut self, length: usize) -> usize {
        self.random.random_range(0..=length)
    }

    fn piece(&mut self, length: usize) -> Range<usize> {
        let start = self.place(length);
        let end = length.min(start + self.random.random_range(0..=LONGEST_PIECE));
        start..end
    }
}

fn starts_of_numbers(input: &[u8]) -> Vec<usize> {
    let is_digit = |place: usize| input[place].is_ascii_digit();
    (0..input.len()).filter(|&place| is_digit(place) && (place == 0 || !is_digit(place - 1))).collect()
}
