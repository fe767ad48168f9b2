//! Follows the headers of the frames that a client sends (RFC 6455 section 5.2), for what tungstenite does not look at:
//! in how many frames a message comes, whether a length is in its shortest form, and the code of a close frame.
//!
//! tungstenite bounds the bytes of a message but not its frames, so that empty fragments could come without end; and it
//! replaces a close code that was registered after it was written. It reads the same bytes after this and judges
//! everything else.

use crate::websocket::refusal::{Refusal, code};
use std::io::Cursor;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Bytes of the longest header: two, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;

/// Where in the stream of frames a connection is.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What has come of the next header.
    header: [u8; LONGEST_HEADER],
    header_length: usize,
    /// Bytes still to come before the next header.
    payload_left: u64,
    /// Frames of the message that is coming in.
    fragments: usize,
    refusal: Option<Refusal>,
    close: Option<Close>,
}

/// The mask of a close frame, and what has come of its code.
#[derive(Debug)]
struct Close {
    mask: [u8; 4],
    code: Vec<u8>,
}

impl Frames {
    /// Takes the bytes as they come. Returns how many of them to pass on: all, or those before the end of the first
    /// header that is refused.
    pub(crate) fn follow(&mut self, bytes: &[u8], most_fragments: usize) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.refusal.is_none() {
            let payload = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len() - at);
            if payload > 0 {
                self.read_close_code(&bytes[at..at + payload]);
                self.payload_left -= payload as u64;
                at += payload;
                continue;
            }
            let come = (self.header_bytes() - self.header_length).min(bytes.len() - at);
            self.header[self.header_length..][..come].copy_from_slice(&bytes[at..at + come]);
            self.header_length += come;
            at += come;
            if self.header_length < self.header_bytes() {
                continue;
            }
            match FrameHeader::parse(&mut Cursor::new(&self.header[..self.header_length])) {
                Ok(Some((header, length))) => self.refusal = self.begin(&header, length, most_fragments).err(),
                // tungstenite refuses the header in the same way, and whatever follows is not read.
                _ => self.payload_left = u64::MAX,
            }
            at -= usize::from(self.refusal.is_some());
        }
        at
    }

    /// Bytes of the header that is coming in, as far as is known: its second byte tells.
    fn header_bytes(&self) -> usize {
        let [_, second, ..] = self.header;
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.header_length < 2 { 2 } else { 2 + length + mask }
    }

    /// Why a header was refused.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// The code of the first close frame, once it has come.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let close = self.close.as_ref()?;
        close.code.first_chunk().map(|code| u16::from_be_bytes(*code))
    }

    /// Judges a header that has come whole, and expects its payload.
    fn begin(&mut self, header: &FrameHeader, length: u64, most_fragments: usize) -> Result<(), Refusal> {
        if header.len(length) != self.header_length {
            return Err(Refusal::new(code::PROTOCOL_ERROR, "the length of a frame is not in its shortest form"));
        }
        (self.payload_left, self.header_length) = (length, 0);
        match header.opcode {
            OpCode::Control(Control::Close) if self.close.is_none() => {
                self.close = header.mask.map(|mask| Close { mask, code: Vec::new() });
            }
            // Control frames may come between fragments and belong to no message.
            OpCode::Control(_) => {}
            OpCode::Data(kind) => {
                self.fragments = if kind == Data::Continue { self.fragments + 1 } else { 1 };
                if self.fragments > most_fragments {
                    let reason = format!("a message may come in at most {most_fragments} frames");
                    return Err(Refusal::new(code::MESSAGE_TOO_BIG, reason));
                }
                if header.is_final {
                    self.fragments = 0;
                }
            }
        }
        Ok(())
    }

    fn read_close_code(&mut self, payload: &[u8]) {
        if let Some(Close { mask, code }) = &mut self.close {
            let come = code.len().min(2);
            code.extend(payload.iter().zip(&mask[come..2]).map(|(byte, mask)| byte ^ mask));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A masked header with the length in the second byte itself, or in so many bytes after it.
    fn header(first: u8, bytes: usize, length: u64) -> Vec<u8> {
        let second = match bytes {
            0 => length as u8,
            2 => 126,
            _ => 127,
        };
        let extended = &length.to_be_bytes()[8 - bytes..];
        [&[first, 0x80 | second], extended, &MASK].concat()
    }

    /// A masked frame with a payload of `length` bytes.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let bytes = match length {
            0..126 => 0,
            126..65536 => 2,
            _ => 8,
        };
        [header(first, bytes, length as u64), vec![0x81; length]].concat()
    }

    /// A message in `count` frames, with a ping after each.
    fn message(count: usize, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for index in 0..count {
            let first = if index == 0 { 0x01 } else { 0x00 } | if index + 1 == count { 0x80 } else { 0x00 };
            bytes.extend(frame(first, length));
            bytes.extend(frame(0x89, 5));
        }
        bytes
    }

    #[test]
    fn a_message_of_as_many_frames_as_allowed_passes_and_one_more_does_not() {
        for length in [0, 1, 125, 126, 65536] {
            let mut frames = Frames::default();
            let (three, four) = (message(3, length), message(4, length));
            assert_eq!(frames.follow(&three, 3), three.len());
            assert_eq!(frames.follow(&three, 3), three.len());
            assert_eq!(frames.refusal(), None);
            // The fourth frame and its ping of 11 bytes are left, but for the header's first bytes.
            let before = four.len() - 11 - frame(0x80, length).len();
            let header = frame(0x80, length).len() - length;
            assert_eq!(frames.follow(&four, 3), before + header - 1);
            let refusal = frames.refusal().unwrap();
            assert_eq!((refusal.code, &*refusal.reason), (1009, "a message may come in at most 3 frames"));
            assert_eq!(frames.follow(&three, 3), 0);
        }
    }

    #[test]
    fn a_length_that_is_not_in_its_shortest_form_is_refused() {
        for first in [0x81, 0x82, 0x01, 0x88, 0x89, 0x8a] {
            for (bytes, length) in [(2, 0), (2, 1), (2, 125), (8, 0), (8, 125), (8, 126), (8, 65535)] {
                let bytes = [message(2, 3), header(first, bytes, length), frame(0x81, 4)].concat();
                let refused_at = bytes.len() - frame(0x81, 4).len() - 1;
                for split in 0..bytes.len() {
                    let mut frames = Frames::default();
                    let (a, b) = bytes.split_at(split);
                    assert_eq!(frames.follow(a, 9) + frames.follow(b, 9), refused_at, "{split}");
                    assert_eq!(frames.refusal().map(|refusal| refusal.code), Some(1002));
                }
            }
            for (bytes, length) in [(0, 0), (0, 125), (2, 126), (2, 65535), (8, 65536), (8, u64::MAX)] {
                let mut frames = Frames::default();
                let bytes = header(first, bytes, length);
                assert_eq!((frames.follow(&bytes, 9), frames.refusal()), (bytes.len(), None));
            }
        }
    }

    #[test]
    fn bytes_may_be_split_anywhere() {
        let bytes = [message(3, 130), message(4, 2)].concat();
        let passed = Frames::default().follow(&bytes, 3);
        assert!(passed < bytes.len());
        for split in 0..bytes.len() {
            let mut frames = Frames::default();
            let (first, second) = bytes.split_at(split);
            assert_eq!(frames.follow(first, 3) + frames.follow(second, 3), passed, "{split}");
        }
        for (most, expected) in [(3, passed), (4, bytes.len())] {
            let mut frames = Frames::default();
            assert_eq!(bytes.iter().map(|byte| frames.follow(&[*byte], most)).sum::<usize>(), expected);
        }
    }

    #[test]
    fn the_code_of_a_close_frame_is_noted_wherever_its_bytes_are_split() {
        let close = [&message(2, 3)[..], &[0x88, 0x84, 1, 2, 3, 4, 0x03 ^ 1, 0xf6 ^ 2, b'a' ^ 3, b'b' ^ 4]].concat();
        for split in 0..close.len() {
            let mut frames = Frames::default();
            let (first, second) = close.split_at(split);
            frames.follow(first, 3);
            assert_eq!(frames.close_code(), (split >= close.len() - 2).then_some(1014));
            frames.follow(second, 3);
            assert_eq!(frames.close_code(), Some(1014));
            // What follows is not looked at any more.
            frames.follow(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], 3);
            assert_eq!(frames.close_code(), Some(1014));
        }
        for without in [&close[..close.len() - 3], &[0x88, 0x80, 1, 2, 3, 4], &[0x88, 0x00], &message(1, 130)] {
            let mut frames = Frames::default();
            frames.follow(without, 3);
            assert_eq!(frames.close_code(), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_pass_as_far_as_they_do_at_once(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![any::<u8>(), 0..3_u8, 0x80..0x83_u8], 0..20), 0..20),
            most in 1..4_usize,
        ) {
            let whole = Frames::default().follow(&pieces.concat(), most);
            let mut frames = Frames::default();
            prop_assert_eq!(pieces.iter().map(|piece| frames.follow(piece, most)).sum::<usize>(), whole);
            prop_assert_eq!(frames.refusal().is_some(), whole < pieces.concat().len());
        }
    }
}
