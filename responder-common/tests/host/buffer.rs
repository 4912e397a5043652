//! A frame on a host; the fuzzers have it, too.

use responder_common::wire::{Frame, Wire};

/// A frame in memory that is aligned as drivers align theirs.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    words: Vec<u16>,
    start: usize,
    end: usize,
    /// The driver resizes nothing.
    pub(crate) rigid: bool,
}

impl Buffer {
    const HEADROOM: usize = 16;

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0; Self::HEADROOM / 2];
        words.extend(bytes.chunks(2).map(|c| u16::from_ne_bytes([c[0], c.get(1).copied().unwrap_or(0)])));
        Self { words, start: Self::HEADROOM, end: Self::HEADROOM + bytes.len(), rigid: false }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let all: Vec<u8> = self.words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        all[self.start..self.end].to_vec()
    }

    /// The index of the first word of a `T`, if the frame has all of it.
    fn place<T>(&self, offset: usize) -> Option<usize> {
        let at = self.start + offset;
        assert_eq!(at % 2, 0, "an odd offset");
        (at + size_of::<T>() <= self.end).then_some(at / 2)
    }
}

impl Frame for Buffer {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
        let word = self.words.get(self.place::<T>(offset)?..)?.as_ptr();
        #[expect(unsafe_code, reason = "a view of the frame, as in the kernel")]
        // SAFETY: `place` has checked that the vector holds all bytes of it; every bit pattern is a `Wire`, whose
        // alignment is that of the words at most.
        unsafe {
            Some(&*word.cast())
        }
    }

    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let place = self.place::<T>(offset)?;
        let word = self.words.get_mut(place..)?.as_mut_ptr();
        #[expect(unsafe_code, reason = "a view of the frame, as in the kernel")]
        // SAFETY: as for `view`; the exclusive borrow of `self` goes on in the result.
        unsafe {
            Some(&mut *word.cast())
        }
    }

    fn shrink(&mut self, len: usize) -> Option<()> {
        assert!(len < self.len(), "not smaller");
        self.end = self.start + len;
        (!self.rigid).then_some(())
    }

    fn grow_front_8(&mut self) -> Option<()> {
        if self.rigid {
            return None;
        }
        self.start -= 8;
        // What is there is left over from whatever was there before.
        self.words[self.start / 2..][..4].fill(0x5a5a);
        Some(())
    }
}
