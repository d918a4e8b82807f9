//! SASL PLAIN (RFC 4616): `[authzid] NUL authcid NUL password`.

/// The mechanisms there are, as a client that lists them is told.
pub const MECHANISMS: &str = "PLAIN";

/// Who a message says it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<'m> {
    /// The user.
    pub user: &'m [u8],
    /// And the password.
    pub password: &'m [u8],
}

/// Why a message is refused before its password is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainError {
    /// It has not three parts, or user or password are empty.
    Malformed,
    /// It asks to act for somebody else.
    OtherIdentity,
}

impl<'m> Plain<'m> {
    /// Takes a message apart.
    pub fn parse(message: &'m [u8]) -> Result<Self, PlainError> {
        let mut parts = message.split(|&byte| byte == 0);
        let (Some(acts_for), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PlainError::Malformed);
        };
        if user.is_empty() || password.is_empty() {
            return Err(PlainError::Malformed);
        }
        if !acts_for.is_empty() && acts_for != user {
            return Err(PlainError::OtherIdentity);
        }
        Ok(Plain { user, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_three_parts() {
        let good = Ok(Plain {
            user: b"ann",
            password: b"a b",
        });
        for (message, want) in [
            ("\0ann\0a b", good),
            ("ann\0ann\0a b", good),
            ("bob\0ann\0a b", Err(PlainError::OtherIdentity)),
            ("", Err(PlainError::Malformed)),
            ("ann", Err(PlainError::Malformed)),
            ("ann\0a b", Err(PlainError::Malformed)),
            ("\0ann\0", Err(PlainError::Malformed)),
            ("\0\0a b", Err(PlainError::Malformed)),
            ("\0ann\0a b\0", Err(PlainError::Malformed)),
            ("\0ann\0a\0b", Err(PlainError::Malformed)),
        ] {
            assert_eq!(Plain::parse(message.as_bytes()), want, "{message:?}");
        }
    }
}
