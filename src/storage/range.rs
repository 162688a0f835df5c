//! Parts of a file as HTTP asks for them (RFC 9110, section 14).

/// Bytes of an object, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    pub fn bytes(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What a header `Range` asks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing that is understood; several parts at once are not.
    Whole,
    Span(Span),
    /// It begins behind the end.
    Beyond,
}

impl Asked {
    /// Of a file of `size` bytes.
    pub fn of(header: &str, size: u64) -> Self {
        let Some(asked) = header.strip_prefix("bytes=") else { return Self::Whole };
        let Some((first, last)) = asked.trim().split_once('-') else { return Self::Whole };
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => Self::Whole,
            (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => Self::Beyond,
            (Some(first), Some(last)) => Self::Span(Span { first, last: last.min(size - 1) }),
            (Some(first), None) if last.is_empty() => Self::Span(Span { first, last: size - 1 }),
            (None, Some(0)) if first.is_empty() => Self::Beyond,
            (None, Some(_)) if first.is_empty() && size == 0 => Self::Beyond,
            (None, Some(count)) if first.is_empty() => {
                Self::Span(Span { first: size.saturating_sub(count), last: size - 1 })
            }
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_http_counts_them() {
        let part = |first, last| Asked::Span(Span { first, last });
        for (header, size, asked) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=3-", 10, part(3, 9)),
            ("bytes=3-99", 10, part(3, 9)),
            ("bytes=-4", 10, part(6, 9)),
            ("bytes=-40", 10, part(0, 9)),
            ("bytes=10-", 10, Asked::Beyond),
            ("bytes=10-12", 10, Asked::Beyond),
            ("bytes=-0", 10, Asked::Beyond),
            ("bytes=0-", 0, Asked::Beyond),
            ("bytes=-1", 0, Asked::Beyond),
            ("bytes=5-3", 10, Asked::Whole),
            ("bytes=0-1,4-5", 10, Asked::Whole),
            ("bytes=", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
            ("bytes=a-b", 10, Asked::Whole),
            ("bytes=+1-2", 10, Asked::Whole),
            ("lines=0-1", 10, Asked::Whole),
            ("bytes=99999999999999999999-", 10, Asked::Whole),
        ] {
            assert_eq!(Asked::of(header, size), asked, "{header} of {size}");
        }
    }
}
