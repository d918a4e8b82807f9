//! Both clients of `ketch-client` from one text.
//!
//! ```text
//!  #[both] impl AsyncClient { async fn get(..) { .. .await } }
//!     |-- feature tokio:  as it stands
//!     '-- always:         impl Client { fn get(..) { .. } }      without `async fn`, `.await`; Client for AsyncClient,
//! ```                                                            and so for all names that begin with Async
//!
//! The same is done to the lines of documentation, so that their examples are right for either client. A block that opens with
//! ```` ```example ```` becomes a test that is compiled and run: it has a `client` of a node that lives in memory, and `?`.
//!
//! What is written so may wait for the client's own methods only: an async block or closure stays what it is.
#![forbid(unsafe_code)]

use proc_macro::{Delimiter, Group, Ident, Literal, TokenStream, TokenTree};

/// See the crate.
#[proc_macro_attribute]
pub fn both(_words: TokenStream, item: TokenStream) -> TokenStream {
    let mut out: TokenStream = "#[cfg(feature = \"tokio\")]".parse().expect("an attribute");
    out.extend(Writer::new(false).rewrite(item.clone()));
    out.extend(Writer::new(true).rewrite(item));
    out
}

/// What an example begins with: lines that are compiled, and not shown.
const ASYNC_HEAD: &str = "```
# use std::time::Duration;
# use ketch_client::{AsyncClient, ClientOptions, testing::TestNode};
# #[tokio::main]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
# let node = TestNode::start();
# let client = AsyncClient::new([node.node()], ClientOptions::default());
";
const BLOCKING_HEAD: &str = "```
# use std::time::Duration;
# use ketch_client::{Client, ClientOptions, testing::TestNode};
# fn main() -> Result<(), Box<dyn std::error::Error>> {
# let node = TestNode::start();
# let client = Client::new([node.node()], ClientOptions::default());
";
/// And what it ends with.
const FOOT: &str = "# Ok(())
# }
```";

/// What the names of the async client's types begin with.
const ASYNC: &str = "Async";

struct Writer {
    blocking: bool,
    /// In the middle of an example.
    in_example: bool,
}

impl Writer {
    fn new(blocking: bool) -> Self {
        Writer {
            blocking,
            in_example: false,
        }
    }

    fn rewrite(&mut self, tokens: TokenStream) -> TokenStream {
        let mut out = TokenStream::new();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let next = tokens.peek();
            match token {
                TokenTree::Ident(word)
                    if self.blocking
                        && is(&word, "async")
                        && next.is_some_and(|next| is_word(next, "fn")) => {}
                TokenTree::Punct(dot)
                    if self.blocking
                        && dot.as_char() == '.'
                        && next.is_some_and(|next| is_word(next, "await")) =>
                {
                    tokens.next();
                }
                TokenTree::Ident(word) if self.blocking => {
                    let name = word.to_string();
                    let word = match name.strip_prefix(ASYNC) {
                        Some(name) if !name.is_empty() => Ident::new(name, word.span()),
                        _ => word,
                    };
                    out.extend([TokenTree::Ident(word)]);
                }
                TokenTree::Group(group) => {
                    let inner = match doc_line(&group) {
                        Some(line) => self.doc(group.stream(), line),
                        None => self.rewrite(group.stream()),
                    };
                    let mut new = Group::new(group.delimiter(), inner);
                    new.set_span(group.span());
                    out.extend([TokenTree::Group(new)]);
                }
                token => out.extend([token]),
            }
        }
        out
    }

    /// A line of documentation: the tokens of `doc = ".."`, and its text.
    fn doc(&mut self, tokens: TokenStream, line: String) -> TokenStream {
        let head = if self.blocking {
            BLOCKING_HEAD
        } else {
            ASYNC_HEAD
        };
        let text = match line.trim() {
            "```example" => {
                self.in_example = true;
                head.trim_end().to_owned()
            }
            "```" if self.in_example => {
                self.in_example = false;
                FOOT.to_owned()
            }
            _ if self.blocking => {
                let line = line.replace(".await", "").replace("async fn", "fn");
                let mut names = line.split(ASYNC);
                // Words alone stay what they are.
                let mut text = names.next().unwrap_or_default().to_owned();
                for name in names {
                    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase());
                    text += if is_name { "" } else { ASYNC };
                    text += name;
                }
                text
            }
            _ => line,
        };
        let mut tokens: Vec<TokenTree> = tokens.into_iter().collect();
        if let Some(last) = tokens.last_mut() {
            let span = last.span();
            *last = TokenTree::Literal(Literal::string(&text));
            last.set_span(span);
        }
        tokens.into_iter().collect()
    }
}

fn is(word: &Ident, text: &str) -> bool {
    word.to_string() == text
}

fn is_word(token: &TokenTree, text: &str) -> bool {
    matches!(token, TokenTree::Ident(word) if is(word, text))
}

/// The text of `[doc = ".."]`.
fn doc_line(group: &Group) -> Option<String> {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let [
        TokenTree::Ident(word),
        TokenTree::Punct(_),
        TokenTree::Literal(text),
    ] = &tokens[..]
    else {
        return None;
    };
    if group.delimiter() != Delimiter::Bracket || !is(word, "doc") {
        return None;
    }
    let text = text.to_string();
    // A comment comes as a raw string, or with its quotes and backslashes escaped.
    match text.strip_prefix('r') {
        Some(raw) => {
            let raw = raw.trim_matches('#');
            Some(raw.get(1..raw.len() - 1)?.to_owned())
        }
        None => {
            let text = text.get(1..text.len() - 1)?;
            let text = text
                .replace("\\\"", "\"")
                .replace("\\'", "'")
                .replace("\\n", "\n");
            Some(text.replace("\\\\", "\\"))
        }
    }
}
