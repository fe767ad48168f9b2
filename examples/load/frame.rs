//! The few WebSocket frames that pass between a page and a like counter, parsed by hand from whatever bytes are there.
//! A count is one unfragmented text frame of a few bytes, so anything larger or cleverer is a breach, not a feature.

/// `{"type":"like"}`, masked: the frame a page sends for one like. Every one is the same, so that any number of
/// them is cut from one block of bytes.
pub const LIKE: [u8; 21] = like();

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame from the server.
#[derive(Debug, PartialEq)]
pub enum Frame<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(Option<u16>),
}

/// Takes the first frame and its length in bytes from `bytes`; `None` while it is not all there.
///
/// # Errors
///
/// When no further byte can make it a frame that a like counter sends: the reason.
pub fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let length = match second {
        0..=125 => usize::from(second),
        126..=127 => return Err("a frame of more than 125 bytes"),
        _ => return Err("a masked frame"),
    };
    if first & 0x80 == 0 || first & 0x0f == 0 {
        return Err("a fragment");
    }
    if first & 0x70 != 0 {
        return Err("a reserved bit is set");
    }
    let end = 2 + length;
    let Some(payload) = bytes.get(2..end) else { return Ok(None) };
    let frame = match first & 0x0f {
        0x1 => Frame::Text(payload),
        0x2 => return Err("a binary frame"),
        0x8 => Frame::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        0x9 => Frame::Ping(payload),
        0xa => Frame::Pong,
        _ => return Err("an unknown opcode"),
    };
    Ok(Some((frame, end)))
}

/// The count in a text frame: bare decimal, nothing else, so no sign, space or leading zero.
pub fn count(text: &[u8]) -> Option<u64> {
    if text.is_empty() || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    text.iter().try_fold(0_u64, |count, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 { None } else { count.checked_mul(10)?.checked_add(digit.into()) }
    })
}

/// A text message of a page.
pub fn text(text: &str) -> Vec<u8> {
    masked(0x1, text.as_bytes())
}

/// The answer to a ping with this payload (of at most 125 bytes).
pub fn pong(payload: &[u8]) -> Vec<u8> {
    masked(0xa, payload)
}

/// The frame that ends a connection: 1000, all done.
pub fn close() -> Vec<u8> {
    masked(0x8, &1000_u16.to_be_bytes())
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "what is sent is short");
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const fn like() -> [u8; 21] {
    let text = br#"{"type":"like"}"#;
    let mut frame = [0; 21];
    frame[0] = 0x81;
    frame[1] = 0x80 | text.len() as u8;
    let mut i = 0;
    while i < 4 {
        frame[2 + i] = MASK[i];
        i += 1;
    }
    i = 0;
    while i < text.len() {
        frame[6 + i] = text[i] ^ MASK[i % 4];
        i += 1;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_taken_and_the_rest_left() {
        let bytes = b"\x81\x0217\x81\x0218";
        assert_eq!(parse(bytes), Ok(Some((Frame::Text(b"17"), 4))));
        assert_eq!(parse(&bytes[4..]), Ok(Some((Frame::Text(b"18"), 4))));
    }

    #[test]
    fn a_frame_cut_anywhere_is_waited_for() {
        let bytes = b"\x89\x04ping";
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "cut at {end}");
        }
        assert_eq!(parse(bytes), Ok(Some((Frame::Ping(b"ping"), 6))));
    }

    #[test]
    fn control_frames_are_told_apart() {
        assert_eq!(parse(b"\x8a\x00"), Ok(Some((Frame::Pong, 2))));
        assert_eq!(parse(b"\x88\x00"), Ok(Some((Frame::Close(None), 2))));
        assert_eq!(parse(b"\x88\x05\x03\xe9bye"), Ok(Some((Frame::Close(Some(1001)), 7))));
    }

    #[test]
    fn what_no_like_counter_sends_is_an_error_at_once() {
        assert_eq!(parse(b"\x81\x7e"), Err("a frame of more than 125 bytes"));
        assert_eq!(parse(b"\x81\x82"), Err("a masked frame"));
        assert_eq!(parse(b"\x01\x01"), Err("a fragment"));
        assert_eq!(parse(b"\x80\x01"), Err("a fragment"));
        assert_eq!(parse(b"\xc1\x01"), Err("a reserved bit is set"));
        assert_eq!(parse(b"\x82\x011"), Err("a binary frame"));
        assert_eq!(parse(b"\x83\x00"), Err("an unknown opcode"));
    }

    #[test]
    fn a_count_is_bare_decimal() {
        assert_eq!(count(b"0"), Some(0));
        assert_eq!(count(b"17"), Some(17));
        assert_eq!(count(b"18446744073709551615"), Some(u64::MAX));
        for text in
            ["", "18446744073709551616", "-1", "+1", "017", "00", " 1", "1\n", "1e3", "NaN", r#"{"numLikes":1}"#]
        {
            assert_eq!(count(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn frames_of_the_client_are_masked() {
        assert_eq!(text(r#"{"type":"like"}"#), LIKE);
        assert_eq!(unmask(&LIKE), (0x81, br#"{"type":"like"}"#.to_vec()));
        assert_eq!(unmask(&pong(b"still there?")), (0x8a, b"still there?".to_vec()));
        assert_eq!(unmask(&close()), (0x88, vec![0x03, 0xe8]));
    }

    fn unmask(frame: &[u8]) -> (u8, Vec<u8>) {
        assert_eq!(usize::from(frame[1]), 0x80 | (frame.len() - 6));
        (frame[0], frame[6..].iter().enumerate().map(|(i, byte)| byte ^ frame[2 + i % 4]).collect())
    }
}
