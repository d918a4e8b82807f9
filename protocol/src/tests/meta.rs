//! Vectors of the meta commands.

use super::{check, check_all, show};
use crate::text::parse;
use crate::{KEY_LEN_MAX, KeyBuf, Parsed, Request, base64};

#[test]
fn meta_get() {
    check_all(&[
        ("mg k", "mg key=k ()"),
        ("mg k v", "mg key=k value (v)"),
        ("mg  k   v  q ", "mg key=k value (v  q ) quiet"),
        ("mg k b", "KeyDecoding"),
        ("mg Zm9v b v k", "mg key64=Zm9v value (b v k)"),
        ("mg k c f h k l s t", "mg key=k (c f h k l s t)"),
        ("mg k u", "mg key=k no_bump (u)"),
        ("mg k T30", "mg key=k touch=30 (T30)"),
        ("mg k T-1", "mg key=k touch=-1 (T-1)"),
        (
            "mg k N30 R60 E7",
            "mg key=k vivify=30 recache=60 new=7 (N30 R60 E7)",
        ),
        ("mg k Oopaque q", "mg key=k (Oopaque q) quiet"),
        ("mg k O", "mg key=k (O)"),
        ("mg k Ppath Llabel", "mg key=k (Ppath Llabel)"),
        ("mg k vv", "mg key=k value (vv)"),
        ("mg", "BadFormat"),
        ("mg ", "BadFormat"),
    ]);
}

#[test]
fn meta_set() {
    check_all(&[
        ("ms k 5", "Set key=k flags=0 exptime=0 len=5 ()"),
        ("ms k 0 T0", "Set key=k flags=0 exptime=0 len=0 (T0)"),
        (
            "ms k 5 T60 F7 q",
            "Set key=k flags=7 exptime=60 len=5 (T60 F7 q) quiet",
        ),
        (
            "ms k 5 F4294967295",
            "Set key=k flags=4294967295 exptime=0 len=5 (F4294967295)",
        ),
        (
            "ms k 5 c k s t Oab",
            "Set key=k flags=0 exptime=0 len=5 (c k s t Oab)",
        ),
        ("ms Zm9v 5 b", "Set key64=Zm9v flags=0 exptime=0 len=5 (b)"),
        ("ms k 5 MS", "Set key=k flags=0 exptime=0 len=5 (MS)"),
        ("ms k 5 MSet", "Set key=k flags=0 exptime=0 len=5 (MSet)"),
        ("ms k 5 ME", "Add key=k flags=0 exptime=0 len=5 (ME)"),
        ("ms k 5 MA", "Append key=k flags=0 exptime=0 len=5 (MA)"),
        ("ms k 5 MP", "Prepend key=k flags=0 exptime=0 len=5 (MP)"),
        ("ms k 5 MR", "Replace key=k flags=0 exptime=0 len=5 (MR)"),
        (
            "ms k 5 C9",
            "Set key=k flags=0 exptime=0 len=5 compare=9 (C9)",
        ),
        (
            "ms k 5 MR C9",
            "Set key=k flags=0 exptime=0 len=5 compare=9 (MR C9)",
        ),
        (
            "ms k 5 MA C9",
            "Append key=k flags=0 exptime=0 len=5 compare=9 (MA C9)",
        ),
        (
            "ms k 5 C0",
            "Set key=k flags=0 exptime=0 len=5 compare=0 (C0)",
        ),
        (
            "ms k 5 MP C0",
            "Prepend key=k flags=0 exptime=0 len=5 (MP C0)",
        ),
        ("ms k 5 ME C9", "Add key=k flags=0 exptime=0 len=5 (ME C9)"),
        (
            "ms k 5 C9 I",
            "Set key=k flags=0 exptime=0 len=5 compare=9 invalidate (C9 I)",
        ),
        ("ms k 5 I", "Set key=k flags=0 exptime=0 len=5 (I)"),
        (
            "ms k 5 C9 I MA",
            "Append key=k flags=0 exptime=0 len=5 compare=9 (C9 I MA)",
        ),
        ("ms k 5 E8", "Set key=k flags=0 exptime=0 len=5 new=8 (E8)"),
        (
            "ms k 5 MA N90",
            "Append key=k flags=0 exptime=0 len=5 vivify=90 (MA N90)",
        ),
        (
            "ms k 5 MP N90",
            "Prepend key=k flags=0 exptime=0 len=5 vivify=90 (MP N90)",
        ),
        ("ms k 5 N90", "Set key=k flags=0 exptime=0 len=5 (N90)"),
        (
            "ms k 2147483645",
            "Set key=k flags=0 exptime=0 len=2147483645 ()",
        ),
    ]);
}

#[test]
fn a_refused_meta_set_names_its_data() {
    check_all(&[
        ("ms k 5 S5", "InvalidFlag skip 7"),
        ("ms k 5 T60 T60", "DuplicateFlag skip 7"),
        ("ms k 5 Tx", "BadToken skip 7"),
        ("ms k 5 Fx", "BadFormat skip 7"),
        ("ms k 5 F4294967296", "BadFormat skip 7"),
        ("ms k 5 C", "BadToken skip 7"),
        ("ms k 5 MX", "StoreMode skip 7"),
        ("ms k 5 M", "StoreMode skip 7"),
        ("ms k 5 Me", "StoreMode skip 7"),
        ("ms k 5 b", "KeyDecoding skip 7"),
        ("ms k 5 q Tx", "BadToken skip 7"),
        (
            "ms k 5 O01234567890123456789012345678901",
            "OpaqueTooLong skip 7",
        ),
        (
            "ms k 5 MX O01234567890123456789012345678901",
            "StoreMode skip 7",
        ),
        ("ms k 2147483646", "BadFormat skip all"),
        ("ms k 1073741825 Tx", "BadToken skip all"),
        ("ms k 1073741824 Tx", "BadToken skip 1073741826"),
        ("ms", "BadFormat"),
        ("ms k", "BadFormat"),
        ("ms k T60", "BadFormat"),
        ("ms k S5", "BadFormat"),
        ("ms k -1", "BadFormat"),
        ("ms k 5x q", "BadFormat"),
    ]);
}

#[test]
fn meta_delete() {
    check_all(&[
        ("md k", "delete key=k ()"),
        ("md k q", "delete key=k (q) quiet"),
        ("md Zm9v b k Oab", "delete key64=Zm9v (b k Oab)"),
        ("md k C5 E6", "delete key=k compare=5 new=6 (C5 E6)"),
        ("md k I T30", "delete key=k invalidate touch=30 (I T30)"),
        ("md k x", "delete key=k drop_value (x)"),
        ("md", "BadFormat"),
        ("md k q q", "DuplicateFlag"),
        ("md k z", "InvalidFlag"),
        ("md k Cx", "BadToken"),
        ("md ! b", "KeyDecoding"),
        ("md k O01234567890123456789012345678901", "OpaqueTooLong"),
    ]);
}

#[test]
fn meta_arithmetic() {
    check_all(&[
        ("ma k", "incr key=k delta=1 ()"),
        ("ma k D5 v", "incr key=k delta=5 value (D5 v)"),
        (
            "ma k D18446744073709551615",
            "incr key=k delta=18446744073709551615 (D18446744073709551615)",
        ),
        ("ma k MI", "incr key=k delta=1 (MI)"),
        ("ma k M+", "incr key=k delta=1 (M+)"),
        ("ma k MD", "decr key=k delta=1 (MD)"),
        ("ma k M- q", "decr key=k delta=1 (M- q) quiet"),
        ("ma k Mincr", "ArithMode"),
        (
            "ma k N90 J13 T30",
            "incr key=k delta=1 vivify=90 initial=13 touch=30 (N90 J13 T30)",
        ),
        (
            "ma k C5 E6 c t",
            "incr key=k delta=1 compare=5 new=6 (C5 E6 c t)",
        ),
        ("ma Zm9v b k Oab", "incr key64=Zm9v delta=1 (b k Oab)"),
        ("ma", "BadFormat"),
        ("ma k M", "ArithMode"),
        ("ma k MS", "ArithMode"),
        ("ma k Dx", "InvalidOrDuplicateFlag"),
        ("ma k D-1", "InvalidOrDuplicateFlag"),
        ("ma k Jx", "InvalidOrDuplicateFlag"),
        ("ma k Nx", "InvalidOrDuplicateFlag"),
        ("ma k Fx", "InvalidOrDuplicateFlag"),
        ("ma k v v", "InvalidOrDuplicateFlag"),
        ("ma k z", "InvalidOrDuplicateFlag"),
        ("ma ! b", "InvalidOrDuplicateFlag"),
        ("ma k O01234567890123456789012345678901", "OpaqueTooLong"),
    ]);
}

#[test]
fn meta_debug_and_noop() {
    check_all(&[
        ("me k", "me key=k"),
        ("me k x", "me key=k"),
        ("me k v b", "me key=k"),
        ("me Zm9v b", "me key64=Zm9v"),
        ("me Zm9v b x", "me key64=Zm9v"),
        ("me", "BadFormat"),
        ("me ! b", "BadFormat"),
        ("mn", "mn"),
        ("mn noreply", "mn"),
        ("mz k", "Error"),
        ("m", "BadFormat"),
    ]);
}

#[test]
fn faults_of_flags() {
    check_all(&[
        ("mg k v v", "DuplicateFlag"),
        ("mg k Oa Ob", "DuplicateFlag"),
        ("mg k \x7f", "InvalidFlag"),
        ("mg k v \u{e9}", "InvalidFlag"),
        ("mg k z", "InvalidFlag"),
        ("mg k S", "InvalidFlag"),
        ("mg k 5", "InvalidFlag"),
        ("mg k \t", "InvalidFlag"),
        ("mg k @", "InvalidFlag"),
        ("mg k ~", "InvalidFlag"),
        ("mg k Tx", "BadToken"),
        ("mg k T", "BadToken"),
        ("mg k T9223372036854775808", "BadToken"),
        ("mg k N", "BadToken"),
        ("mg k R1.5", "BadToken"),
        ("mg k E-1", "BadToken"),
        ("mg k Cx", "BadToken"),
        ("mg k C18446744073709551616", "BadToken"),
        ("mg k Fx", "BadFormat"),
        ("mg k J", "InitialValue"),
        ("mg k D", "DeltaValue"),
        // Letters of other commands are checked, and that is all.
        (
            "mg k F1 C2 I M? x D3 J4",
            "mg key=k known=2 (F1 C2 I M? x D3 J4)",
        ),
        // The reading goes on behind a bad number, and stops at a bad letter.
        ("mg k Tx Dx", "DeltaValue"),
        ("mg k Dx Tx", "BadToken"),
        ("mg k Tx Fx", "BadToken"),
        ("mg k Fx Tx", "BadToken"),
        ("mg k Tx q q", "DuplicateFlag"),
        ("mg k Tx z", "InvalidFlag"),
        ("mg k z q q", "InvalidFlag"),
        (
            "mg k O0123456789012345678901234567890",
            "mg key=k (O0123456789012345678901234567890)",
        ),
        ("mg k O01234567890123456789012345678901", "OpaqueTooLong"),
        ("mg k O01234567890123456789012345678901 Tx", "BadToken"),
    ]);
}

#[test]
fn a_meta_command_has_twenty_words() {
    check_all(&[
        (
            "mg k c f h k l s t u v q b O P L T1 N1 R1 E1",
            "KeyDecoding",
        ),
        (
            "mg Zm9v c f h k l s t u v q b O P L T1 N1 R1 E1",
            "mg key64=Zm9v value no_bump touch=1 vivify=1 recache=1 new=1 \
             (c f h k l s t u v q b O P L T1 N1 R1 E1) quiet",
        ),
        (
            "mg k c f h k l s t u v q b O P L T1 N1 R1 E1 C1",
            "TooManyFlags",
        ),
        (
            "ms k 5 c f h k l s t u v q x O P L T1 N1 R1",
            "Set key=k flags=0 exptime=1 len=5 (c f h k l s t u v q x O P L T1 N1 R1) quiet",
        ),
        (
            "ms k 5 c f h k l s t u v q x O P L T1 N1 R1 E1",
            "TooManyFlags skip 7",
        ),
        ("md k z z z z z z z z z z z z z z z z z z z", "TooManyFlags"),
        (
            "ma k z z z z z z z z z z z z z z z z z z z",
            "InvalidOrDuplicateFlag",
        ),
    ]);
}

#[test]
fn key_lengths() {
    let longest = "k".repeat(KEY_LEN_MAX);
    let too_long = "k".repeat(KEY_LEN_MAX + 1);
    check(
        format!("mg {longest} v"),
        &format!("mg key={longest} value (v)"),
    );
    check(format!("me {longest}"), &format!("me key={longest}"));
    for (line, answer) in [
        ("mg K", "BadFormat"),
        ("mg K z", "BadFormat"),
        ("ms K 5", "BadFormat skip 7"),
        ("ms K 5 q", "BadFormat skip 7"),
        ("md K", "BadFormat"),
        ("ma K", "InvalidOrDuplicateFlag"),
        ("me K", "BadFormat"),
    ] {
        check(line.replace('K', &too_long), answer);
    }
}

#[test]
fn a_base64_key_counts_by_its_decoded_bytes() {
    let text = |len: usize| {
        let mut text = Vec::new();
        base64::encode(&vec![7; len], &mut text);
        String::from_utf8(text).expect("base64 is ASCII")
    };
    let (longest, too_long) = (text(KEY_LEN_MAX), text(KEY_LEN_MAX + 1));
    check(
        format!("mg {longest} v b"),
        &format!("mg key64={longest} value (v b)"),
    );
    check(format!("mg {longest} v"), "BadFormat");
    check(format!("mg {too_long} v b"), "BadFormat");
    check(format!("ms {too_long} 5 b"), "BadFormat skip 7");
    check(format!("me {longest} b"), &format!("me key64={longest}"));
    check(format!("me {too_long} b"), "BadFormat");

    let wire = format!("mg {longest} b\r\n");
    let Parsed::Complete {
        request: Request::MetaGet(get),
        ..
    } = parse(wire.as_bytes())
    else {
        panic!("{}", show(parse(wire.as_bytes())));
    };
    let mut room = KeyBuf::default();
    assert_eq!(get.key.bytes(&mut room), [7; KEY_LEN_MAX]);
}

#[test]
fn tokens_come_back_in_order() {
    let wire = b"mg k v  Oabc T-1 q\n";
    let Parsed::Complete {
        request: Request::MetaGet(get),
        ..
    } = parse(wire)
    else {
        panic!("{}", show(parse(wire)));
    };
    let tokens: Vec<_> = get.tokens.iter().collect();
    assert_eq!(
        tokens,
        [(b'v', &b""[..]), (b'O', b"abc"), (b'T', b"-1"), (b'q', b"")]
    );
}
