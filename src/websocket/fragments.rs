//! Counts the frames of a message while their bytes go by, and notes the code of a close frame.
//!
//! tungstenite bounds the bytes of a message but not its frames, so that empty fragments could come without end; and it
//! takes a code that was registered after it was written for a mistake, and does not say which it was. This follows
//! the frame headers (RFC 6455 section 5.2) and leaves every other judgement to tungstenite, which sees the same bytes.

/// Where in the stream of frames the bytes have come to.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    header: [u8; 14],
    header_length: usize,
    payload_left: u64,
    count: usize,
    exceeded: bool,
    close: Option<Close>,
}

/// Bytes of a mask. A frame without one ends the connection, so that where it ends does not matter.
const MASK: usize = 4;

/// What has come of the code in a close frame.
#[derive(Debug)]
struct Close {
    mask: [u8; MASK],
    come: usize,
    code: u16,
}

impl Fragments {
    /// Takes the bytes as they come; says how many of them stand before the end of the first header that is one too
    /// many for its message. What came before it in the same bytes has been sent in good faith, and is not lost.
    pub(crate) fn within(&mut self, bytes: &[u8], most: usize) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.exceeded {
            let skipped = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len() - at);
            if let Some(close) = &mut self.close {
                close.read(&bytes[at..at + skipped]);
            }
            self.payload_left -= skipped as u64;
            at += skipped;
            let Some(&byte) = bytes.get(at) else { break };
            self.header[self.header_length] = byte;
            self.header_length += 1;
            if let Some(length) = self.payload_length() {
                self.payload_left = length;
                self.close = self.close.take().or_else(|| self.close());
                self.header_length = 0;
                self.exceeded = !self.count(most);
            }
            at += usize::from(!self.exceeded);
        }
        at
    }

    /// Whether a message had more frames than allowed.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// The code of the first close frame, once it is there.
    pub(crate) fn close_code(&self) -> Option<u16> {
        self.close.as_ref().filter(|close| close.come == 2).map(|close| close.code)
    }

    /// What to note, where the header, now whole, is that of a close frame.
    fn close(&self) -> Option<Close> {
        let mask = *self.header[..self.header_length].last_chunk()?;
        (self.header[0] & 0x0f == 8).then_some(Close { mask, come: 0, code: 0 })
    }

    /// The length of the payload, once the header is whole.
    fn payload_length(&self) -> Option<u64> {
        let [_, second, extended @ ..] = self.header;
        let (bytes, length) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes([extended[0], extended[1]]))),
            127 => {
                let [a, b, c, d, e, f, g, h, ..] = extended;
                (8, u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            short => (0, u64::from(short)),
        };
        (self.header_length == 2 + bytes + MASK).then_some(length)
    }

    fn count(&mut self, most: usize) -> bool {
        let (last, opcode) = (self.header[0] & 0x80 != 0, self.header[0] & 0x0f);
        if opcode >= 8 {
            return true; // control frames may come between fragments and belong to no message
        }
        self.count = if opcode == 0 { self.count + 1 } else { 1 };
        let within = self.count <= most;
        if last {
            self.count = 0;
        }
        within
    }
}

impl Close {
    fn read(&mut self, payload: &[u8]) {
        for byte in payload.iter().take(2 - self.come) {
            self.code = self.code << 8 | u16::from(byte ^ self.mask[self.come]);
            self.come += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A masked frame with a payload of `length` bytes.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = match length {
            0..126 => vec![first, 0x80 | length as u8],
            126..65536 => [&[first, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[first, 0xff][..], &(length as u64).to_be_bytes()].concat(),
        };
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(vec![0x81; length]);
        bytes
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
            let mut fragments = Fragments::default();
            let (three, four) = (message(3, length), message(4, length));
            assert_eq!(fragments.within(&three, 3), three.len());
            assert_eq!(fragments.within(&three, 3), three.len());
            assert!(!fragments.exceeded());
            // The fourth frame and its ping of 11 bytes are left, but for the header's first bytes.
            let before = four.len() - 11 - frame(0x80, length).len();
            let header = frame(0x80, length).len() - length;
            assert_eq!(fragments.within(&four, 3), before + header - 1);
            assert!(fragments.exceeded());
            assert_eq!(fragments.within(&three, 3), 0);
        }
    }

    #[test]
    fn bytes_may_be_split_anywhere() {
        let bytes = [message(3, 130), message(4, 2)].concat();
        let within = Fragments::default().within(&bytes, 3);
        assert!(within < bytes.len());
        for split in 0..bytes.len() {
            let mut fragments = Fragments::default();
            let (first, second) = bytes.split_at(split);
            assert_eq!(fragments.within(first, 3) + fragments.within(second, 3), within, "{split}");
        }
        for (most, expected) in [(3, within), (4, bytes.len())] {
            let mut fragments = Fragments::default();
            assert_eq!(bytes.iter().map(|byte| fragments.within(&[*byte], most)).sum::<usize>(), expected);
        }
    }

    #[test]
    fn the_code_of_a_close_frame_is_noted_wherever_its_bytes_are_split() {
        let close = [&message(2, 3)[..], &[0x88, 0x84, 1, 2, 3, 4, 0x03 ^ 1, 0xf6 ^ 2, b'a' ^ 3, b'b' ^ 4]].concat();
        for split in 0..close.len() {
            let mut fragments = Fragments::default();
            let (first, second) = close.split_at(split);
            fragments.within(first, 3);
            assert_eq!(fragments.close_code(), (split >= close.len() - 2).then_some(1014));
            fragments.within(second, 3);
            assert_eq!(fragments.close_code(), Some(1014));
            // What follows is not looked at any more.
            fragments.within(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], 3);
            assert_eq!(fragments.close_code(), Some(1014));
        }
        for without in [&close[..close.len() - 3], &[0x88, 0x80, 1, 2, 3, 4], &[0x88, 0x00], &message(1, 130)] {
            let mut fragments = Fragments::default();
            fragments.within(without, 3);
            assert_eq!(fragments.close_code(), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_pass_as_far_as_they_do_at_once(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![any::<u8>(), 0..3_u8, 0x80..0x83_u8], 0..20), 0..20),
            most in 1..4_usize,
        ) {
            let whole = Fragments::default().within(&pieces.concat(), most);
            let mut fragments = Fragments::default();
            prop_assert_eq!(pieces.iter().map(|piece| fragments.within(piece, most)).sum::<usize>(), whole);
            prop_assert_eq!(fragments.exceeded(), whole < pieces.concat().len());
        }
    }
}
