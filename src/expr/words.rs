//! The words of an expression, before it is parsed: what can be told by looking at them alone is told best, and where
//! a word stands.

use std::ops::Range;

use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::component::{Fault, Name};

/// How many words may stand in one parenthesis without a comma between them, counted with those around it. Every
/// operator of a chain (`a + b + c …`) is a call deeper, and a stack has an end.
const CHAIN_MAX: usize = 256;

/// Every word and sign of a text; none where even that cannot be read.
fn words(text: &str) -> Vec<TokenWithSpan> {
    let mut words = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap_or_default();
    words.retain(|word| !matches!(word.token, Token::Whitespace(_) | Token::EOF));
    words
}

/// The byte of the text at a line and column, both from 1.
pub(crate) fn offset(text: &str, line: u64, column: u64) -> usize {
    let number = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = text.split_inclusive('\n').take(number(line)).map(str::len).sum();
    before + text[before..].chars().take(number(column)).map(char::len_utf8).sum::<usize>()
}

fn range(text: &str, word: &TokenWithSpan) -> Range<usize> {
    let at = |place: Location| offset(text, place.line, place.column);
    at(word.span.start)..at(word.span.end)
}

/// The word that stands at a byte, or that byte alone.
pub(crate) fn word_at(text: &str, at: usize) -> Range<usize> {
    let rest = text[at..].split_whitespace().next().map_or(0, str::len);
    words(text).iter().map(|word| range(text, word)).find(|place| place.start == at).unwrap_or(at..at + rest)
}

/// The last word.
pub(crate) fn last(text: &str) -> Range<usize> {
    words(text).last().map_or(0..text.len(), |word| range(text, word))
}

/// Where a word stands first: as a name, or else as a text in quotes.
pub(crate) fn find(text: &str, wanted: &str) -> Option<Range<usize>> {
    let words = words(text);
    let named = |exact: bool| {
        words.iter().find(|word| match &word.token {
            Token::Word(word) => word.value == wanted || (!exact && word.value.eq_ignore_ascii_case(wanted)),
            _ => false,
        })
    };
    let quoted = || words.iter().find(|word| matches!(&word.token, Token::SingleQuotedString(text) if text == wanted));
    let sign = || words.iter().find(|word| word.token.to_string() == wanted);
    named(true).or_else(|| named(false)).or_else(quoted).or_else(sign).map(|word| range(text, word))
}

/// Refuses what needs no grammar to be refused.
pub(crate) fn check(text: &Name) -> Result<(), Fault> {
    let words = words(&text.text);
    let fault = |word: &TokenWithSpan, what: &str| Err(text.fault_within(range(&text.text, word), what));
    if text.text.trim().is_empty() {
        return Err(text.fault("expected an expression in SQL, got an empty text"));
    }
    // What is open, and how many words stand in it since the last comma.
    let mut open: Vec<(Option<&TokenWithSpan>, usize)> = vec![(None, 0)];
    let mut before = None;
    for word in &words {
        let innermost = open.last_mut().map_or(&mut 0, |(_, words)| words).saturating_add(1);
        match &word.token {
            Token::Word(name) if name.quote_style.is_none() && name.keyword == Keyword::SELECT => {
                return fault(word, "expected an expression, got a query: there are no tables here");
            }
            Token::Word(name) if name.keyword == Keyword::OVER && before == Some(&Token::RParen) => {
                return fault(word, "OVER is not for streams: use a window operator");
            }
            Token::LParen | Token::LBracket | Token::LBrace => {
                count(&mut open, innermost);
                open.push((Some(word), 0));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if open.len() == 1 {
                    return fault(word, &format!("`{}` closes nothing", word.token));
                }
                open.pop();
            }
            Token::Comma => count(&mut open, 0),
            _ => count(&mut open, innermost),
        }
        if open.iter().map(|(_, words)| words).sum::<usize>() > CHAIN_MAX {
            return fault(word, &format!("too long: there are more than {CHAIN_MAX} words without a comma"));
        }
        before = Some(&word.token);
    }
    match open.last() {
        Some((Some(word), _)) => fault(word, &format!("`{}` is not closed", word.token)),
        _ => Ok(()),
    }
}

fn count(open: &mut [(Option<&TokenWithSpan>, usize)], words: usize) {
    if let Some((_, innermost)) = open.last_mut() {
        *innermost = words;
    }
}
