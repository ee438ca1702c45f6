//! Random changes to known inputs.

use crate::rng::Rng;

/// Bytes an input may have; longer ones take time and find nothing more.
const LENGTH_MAX: usize = 16 * 1024;

/// Bytes at which decoders decide: ends of ranges, tags, lengths, varints that are not minimal.
const TELLING: [&[u8]; 16] = [
    &[0x00],
    &[0x01],
    &[0x3f],
    &[0x40, 0x00],
    &[0x7f],
    &[0x80],
    &[0x80, 0x00],
    &[0x80, 0x01],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xc0, 0, 0, 0, 0, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x0a, 0x00],
    &[0x12, 0x01, 0x00],
    &[0xe2, 0x80, 0x8b],
];

/// One of the inputs with one to eight changes, often only one.
pub(crate) fn mutated(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = one_of(inputs, rng).to_vec();
    let changes = 1 + rng.below(8).min(rng.below(8));
    for _ in 0..changes {
        change(&mut input, inputs, rng);
    }
    input.truncate(LENGTH_MAX);
    input
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.below(input.len() + 1);
    match rng.below(10) {
        0 => with_byte(input, at, |byte, rng| *byte ^= 1 << rng.below(8), rng),
        1 => with_byte(input, at, |byte, rng| *byte = rng.byte(), rng),
        2 => with_byte(input, at, |byte, _| *byte = byte.wrapping_add(1), rng),
        3 => with_byte(input, at, |byte, _| *byte = byte.wrapping_sub(1), rng),
        4 => {
            let telling = TELLING[rng.below(TELLING.len())];
            let replaced = if rng.below(2) == 0 { 0 } else { telling.len() };
            let end = (at + replaced).min(input.len());
            input.splice(at..end, telling.iter().copied());
        }
        5 => {
            let end = at + rng.below(16.min(input.len() - at) + 1);
            input.drain(at..end);
        }
        6 => {
            let end = at + rng.below(input.len() - at + 1);
            let repeated = input[at..end].to_vec();
            let to = rng.below(input.len() + 1);
            input.splice(to..to, repeated);
        }
        7 => input.truncate(at),
        _ => {
            let other = one_of(inputs, rng);
            let from = rng.below(other.len() + 1);
            let taken = rng.below(other.len() - from + 1);
            let replaced = if rng.below(2) == 0 { taken } else { 0 };
            let end = (at + replaced).min(input.len());
            input.splice(at..end, other[from..from + taken].iter().copied());
        }
    }
}

fn with_byte(input: &mut [u8], at: usize, change: impl FnOnce(&mut u8, &mut Rng), rng: &mut Rng) {
    if let Some(byte) = input.get_mut(at) {
        change(byte, rng);
    }
}

fn one_of<'a>(inputs: &'a [Vec<u8>], rng: &mut Rng) -> &'a [u8] {
    inputs.get(rng.below(inputs.len())).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let inputs = [b"abcdefgh".to_vec(), Vec::new()];
        let run = |seed| {
            let mut rng = Rng::new(seed);
            (0..200).map(|_| mutated(&inputs, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
