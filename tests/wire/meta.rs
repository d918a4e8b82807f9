//! mn, mg, ms, md, ma, me: every flag, every status, every error, and the lease flows built from them.

use std::collections::BTreeSet;

use ketch_testing::{Conn, Server, Vector, both, is_ketch, newer, ours, run_vectors};

const NAMES_THE_FAULT: &str = "1.6.18 answers a plain ERROR to a line with too few words";
const KNOWS_E: &str = "1.6.18 does not know the flag E";
const KNOWS_C: &str = "1.6.18 does not know C in mg";
const KNOWS_X: &str = "1.6.18 does not know the flag x";
const ECHOES: &str = "1.6.18 does not return s from ms";
const MODE_LENGTH: &str = "1.6.18 has its own error for a mode of two letters or none";
const NO_LETTER: &str = "1.6.45 calls a flag that is no letter a bad command line format";
const NAMES_FLAGS: &str = "1.6.18 has one error for all flag faults of md";
const TOO_MANY: &str = "1.6.18 words it otherwise";
const APPEND_VIVIFY: &str = "1.6.18 does not create by append";

const MISC: &[Vector] = &[
    both("mn\r\n", "MN\r\n"),
    both("mn\r\nmn\r\nmn\r\n", "MN\r\nMN\r\nMN\r\n"),
    both("mx a\r\n", "ERROR\r\n"),
    both("Mg a\r\n", "ERROR\r\n"),
    newer(
        NAMES_THE_FAULT,
        "mg\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "ms\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "md\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    newer(
        NAMES_THE_FAULT,
        "ma\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both("me\r\n", "CLIENT_ERROR bad command line format\r\n"),
    both("me none\r\n", "EN\r\n"),
    both(
        "set a 0 0 1\r\nx\r\nme a\r\n",
        "STORED\r\nME a exp=-1 la={n} cas={n} fetch=no cls={n} size={n}\r\n",
    ),
    newer(
        "1.6.18 prints the time to live with its sign turned",
        "set a 0 100 1\r\nx\r\nget a\r\nme a\r\n",
        "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nME a exp={100} la={n} cas={n} fetch=yes cls={n} size={n}\r\n",
    ),
    // A key that was stored as base64 is printed so; it is one key with its bytes in the other protocols.
    ours(
        "1.6.18 and later ones decode only with yet another word behind b",
        "ms Zm9v 1 b\r\nx\r\nme Zm9v b\r\n",
        "HD\r\nME Zm9v exp=-1 la={n} cas={n} fetch=no cls={n} size={n}\r\n",
    ),
];

const GET: &[Vector] = &[
    both("mg none\r\n", "EN\r\n"),
    both("mg none v\r\n", "EN\r\n"),
    both("mg none s v t f\r\n", "EN\r\n"),
    both("ms a 2\r\nhi\r\nmg a\r\n", "HD\r\nHD\r\n"),
    both("ms a 2\r\nhi\r\nmg a v\r\n", "HD\r\nVA 2\r\nhi\r\n"),
    both("ms a 0\r\n\r\nmg a v\r\n", "HD\r\nVA 0\r\n\r\n"),
    both("ms a 2\r\nhi\r\nmg a s v\r\n", "HD\r\nVA 2 s2\r\nhi\r\n"),
    // Returned in the order of the request, wherever v and q stand.
    both(
        "ms a 2 F9 T0\r\nhi\r\nmg a t v f s\r\n",
        "HD\r\nVA 2 t-1 f9 s2\r\nhi\r\n",
    ),
    both(
        "ms a 2 F9 T100\r\nhi\r\nmg a s f t\r\n",
        "HD\r\nHD s2 f9 t{100}\r\n",
    ),
    both(
        "ms a 2\r\nhi\r\nmg a k O77 q c\r\n",
        "HD\r\nHD ka O77 c{n}\r\n",
    ),
    both(
        "ms a 2\r\nhi\r\nmg a O77 v k\r\n",
        "HD\r\nVA 2 O77 ka\r\nhi\r\n",
    ),
    both(
        "ms a 2\r\nhi\r\nmg a  s   v \r\n",
        "HD\r\nVA 2 s2\r\nhi\r\n",
    ),
    // The opaque is whatever follows the letter, nothing as well.
    both("ms a 2\r\nhi\r\nmg a O\r\n", "HD\r\nHD O\r\n"),
    both("mg none O123 k\r\n", "EN O123 knone\r\n"),
    both("mg none k O123\r\n", "EN knone O123\r\n"),
    // q hides a miss and nothing else.
    both("mg none q\r\n", ""),
    both("mg none q v k O1\r\n", ""),
    both(
        "ms a 2\r\nhi\r\nmg a q\r\nmg a v q\r\n",
        "HD\r\nHD\r\nVA 2\r\nhi\r\n",
    ),
    both(
        "mg none v q\r\nms a 1\r\nx\r\nmg none2 v q\r\nmg a v q k\r\nmn\r\n",
        "HD\r\nVA 1 ka\r\nx\r\nMN\r\n",
    ),
    ours(
        NO_LETTER,
        "mg none q ?\r\n",
        "CLIENT_ERROR invalid flag\r\n",
    ),
    // h: fetched before; l: seconds since the last access; u: leaves both.
    both(
        "ms a 1\r\nx\r\nmg a h l\r\nmg a h\r\nmg a u h\r\n",
        "HD\r\nHD h0 l{n}\r\nHD h1\r\nHD h1\r\n",
    ),
    both(
        "ms a 1\r\nx\r\nmg a u\r\nmg a u h\r\nmg a h\r\nmg a h\r\n",
        "HD\r\nHD\r\nHD h0\r\nHD h0\r\nHD h1\r\n",
    ),
    both(
        "ms a 1\r\nx\r\nget a\r\nmg a h\r\n",
        "HD\r\nVALUE a 0 1\r\nx\r\nEND\r\nHD h1\r\n",
    ),
    // T sets the time to live.
    both(
        "ms a 1\r\nx\r\nmg a T100\r\nmg a t\r\n",
        "HD\r\nHD\r\nHD t{100}\r\n",
    ),
    both(
        "ms a 1\r\nx\r\nmg a t T100\r\nmg a T200 t\r\n",
        "HD\r\nHD t-1\r\nHD t{200}\r\n",
    ),
    both(
        "ms a 1 T50\r\nx\r\nmg a T0\r\nmg a t\r\n",
        "HD\r\nHD\r\nHD t-1\r\n",
    ),
    both("ms a 1\r\nx\r\nmg a T-1\r\nmg a\r\n", "HD\r\nHD\r\nEN\r\n"),
    both("mg none T100\r\nmg none\r\n", "EN\r\nEN\r\n"),
    // P and L are for proxies; a server takes no notice of them.
    both(
        "ms a 1\r\nx\r\nmg a L s\r\nmg a Lbar\r\n",
        "HD\r\nHD s1\r\nHD\r\n",
    ),
    // Faults.
    ours(NO_LETTER, "mg a ?\r\n", "CLIENT_ERROR invalid flag\r\n"),
    newer(NO_LETTER, "mg a 1\r\n", "CLIENT_ERROR invalid flag\r\n"),
    both("mg a S1\r\n", "CLIENT_ERROR invalid flag\r\n"),
    both("mg a k k\r\n", "CLIENT_ERROR duplicate flag\r\n"),
    both("mg a O1 O2\r\n", "CLIENT_ERROR duplicate flag\r\n"),
    ours(
        "1.6.18 calls it a duplicate flag, 1.6.45 a bad command line format",
        "mg a \u{e9}\r\nmg a v \x7f\r\nma a \u{e9}\r\nmd a q \u{e9}\r\nmg a\r\n",
        "CLIENT_ERROR invalid flag\r\nCLIENT_ERROR invalid flag\r\nCLIENT_ERROR invalid or duplicate flag\r\nCLIENT_ERROR invalid flag\r\nEN\r\n",
    ),
    // Who knows the unique has the value.
    newer(
        KNOWS_C,
        "ms a 2 E5 F3\r\nhi\r\nmg a v C5\r\nmg a v C5 c s f t k Oq\r\nmg a q v C5\r\n",
        "HD\r\nHD\r\nHD c5 s2 f3 t-1 ka Oq\r\nHD\r\n",
    ),
    newer(
        KNOWS_C,
        "ms a 2 E5 F3\r\nhi\r\nmg a v C4\r\nmg a v C6 c\r\nmg a C4\r\nmg a C5\r\nmg a C5 T30\r\nmg a v C5 t\r\n",
        "HD\r\nVA 2\r\nhi\r\nVA 2 c5\r\nhi\r\nHD\r\nHD\r\nHD\r\nHD t{30}\r\n",
    ),
    newer(
        KNOWS_C,
        "mg none v C5\r\nmg none v q C5\r\nmg a v N30 E7 C7\r\nmg a v C7\r\nmg a Cx v\r\n",
        "EN\r\nHD W\r\nHD Z\r\nCLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "mg a Tx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "mg a T\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "mg a Nx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "mg a Rx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    newer(
        KNOWS_E,
        "mg a Ex\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "mg a O1234567890123456789012345678901\r\n",
        "EN O1234567890123456789012345678901\r\n",
    ),
    both(
        "mg a O12345678901234567890123456789012\r\n",
        "CLIENT_ERROR opaque token too long\r\n",
    ),
    both(
        "ms a 1\r\nx\r\nmg a O12345678901234567890123456789012 v\r\n",
        "HD\r\nCLIENT_ERROR opaque token too long\r\n",
    ),
    newer(
        TOO_MANY,
        "mg a b c f h k l q s t u v E1 N1 O1 P L R1 T1 x I C1 D1\r\n",
        "CLIENT_ERROR options flags are too long\r\n",
    ),
    newer(
        "1.6.18 knows fewer flags",
        "ms Zm9v 1 b\r\nx\r\nmg Zm9v b c f h k l q s t u v E1 N1 O1 P L\r\n",
        "HD\r\nVA 1 c{n} f0 h0 kZm9v b l{n} s1 t-1 O1\r\nx\r\n",
    ),
];

const BASE64: &[Vector] = &[
    // Zm9v is "foo" in base64: one item under both names.
    both(
        "ms Zm9v 2 b\r\nhi\r\nmg Zm9v b v\r\nmg foo v\r\nget foo\r\n",
        "HD\r\nVA 2\r\nhi\r\nVA 2\r\nhi\r\nVALUE foo 0 2\r\nhi\r\nEND\r\n",
    ),
    both(
        "set foo 0 0 2\r\nhi\r\nmg Zm9v b v\r\nmd Zm9v b\r\nget foo\r\n",
        "STORED\r\nVA 2\r\nhi\r\nHD\r\nEND\r\n",
    ),
    both(
        "ms Zm9v 2 b k\r\nhi\r\nmg Zm9v b k\r\nmg Zm9v k b s\r\n",
        "HD kZm9v b\r\nHD kZm9v b\r\nHD kZm9v b s2\r\n",
    ),
    both(
        "mg Zm9v k b\r\nmd Zm9v k b\r\nma Zm9v k b\r\n",
        "EN kZm9v b\r\nNF kZm9v b\r\nNF kZm9v b\r\n",
    ),
    both(
        "ms Zm9v 1 b\r\n5\r\nma Zm9v k b v\r\nmd Zm9v O1 k b\r\n",
        "HD\r\nVA 1 kZm9v b\r\n6\r\nHD O1 kZm9v b\r\n",
    ),
    // Without b the same letters are another key.
    both(
        "ms Zm9v 2 k\r\nhi\r\nmg foo\r\nmg Zm9v k v\r\n",
        "HD kZm9v\r\nEN\r\nVA 2 kZm9v\r\nhi\r\n",
    ),
    // A hit names the key as it was stored, a miss as it was asked for.
    newer(
        "1.6.18 prints the key without decoding it",
        "set foo 0 0 2\r\nhi\r\nmg Zm9v b k\r\nmg Zm9v b k v\r\nmg Zm8= b k\r\nms Zm9v 1 b k\r\nx\r\nmg foo k\r\nmd foo k\r\n",
        "STORED\r\nHD kfoo\r\nVA 2 kfoo\r\nhi\r\nEN kZm8= b\r\nHD kZm9v b\r\nHD kZm9v b\r\nHD kfoo\r\n",
    ),
    // Any byte can stand in such a key: here a blank, a line end and 0.
    both(
        "ms IA0KAA== 2 b k\r\nhi\r\nmg IA0KAA== b k v\r\nmd IA0KAA== b\r\nmg IA0KAA== b\r\n",
        "HD kIA0KAA== b\r\nVA 2 kIA0KAA== b\r\nhi\r\nHD\r\nEN\r\n",
    ),
    both("mg a*b b\r\n", "CLIENT_ERROR error decoding key\r\n"),
    both("mg a b\r\n", "CLIENT_ERROR error decoding key\r\n"),
    both("mg Zm9vZ b\r\n", "CLIENT_ERROR error decoding key\r\n"),
    newer(
        NAMES_FLAGS,
        "md a*b b\r\n",
        "CLIENT_ERROR error decoding key\r\n",
    ),
    both("ma a*b b\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
];

const SET: &[Vector] = &[
    both(
        "ms a 1\r\nx\r\nget a\r\n",
        "HD\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    both(
        "ms a 1 F7 T100\r\nx\r\nget a\r\nmg a t\r\n",
        "HD\r\nVALUE a 7 1\r\nx\r\nEND\r\nHD t{100}\r\n",
    ),
    both(
        "ms a 1 F4294967295\r\nx\r\nmg a f\r\n",
        "HD\r\nHD f4294967295\r\n",
    ),
    both("ms a 1 T-1\r\nx\r\nmg a\r\n", "HD\r\nEN\r\n"),
    both(
        "ms a 1 k O5\r\nx\r\nms a 1 O5 k\r\nx\r\n",
        "HD ka O5\r\nHD O5 ka\r\n",
    ),
    both("ms a 1 c\r\nx\r\nmg a c\r\n", "HD c{n}\r\nHD c{n}\r\n"),
    newer(ECHOES, "ms a 3 s k\r\nxyz\r\n", "HD s3 ka\r\n"),
    newer(
        ECHOES,
        "ms a 3\r\nxyz\r\nms a 2 MA s\r\n!!\r\nms a 1 MP s\r\n!\r\n",
        "HD\r\nHD s5\r\nHD s6\r\n",
    ),
    // q hides HD and nothing else.
    both("ms a 1 q\r\nx\r\nmg a v\r\n", "VA 1\r\nx\r\n"),
    both(
        "ms a 1 ME q\r\nx\r\nms a 1 ME q k\r\ny\r\nmg a v\r\n",
        "NS ka\r\nVA 1\r\nx\r\n",
    ),
    both(
        "ms a 1 MR q\r\nx\r\nms a 1 C9 q O3\r\nx\r\n",
        "NS\r\nNF O3\r\n",
    ),
    // Modes.
    both(
        "ms a 1 MS\r\nx\r\nms a 1 MS\r\ny\r\nmg a v\r\n",
        "HD\r\nHD\r\nVA 1\r\ny\r\n",
    ),
    both(
        "ms a 1 ME\r\nx\r\nms a 1 ME\r\ny\r\nmg a v\r\n",
        "HD\r\nNS\r\nVA 1\r\nx\r\n",
    ),
    both(
        "ms a 1 MR\r\nx\r\nms a 1\r\nx\r\nms a 1 MR\r\ny\r\nmg a v\r\n",
        "NS\r\nHD\r\nHD\r\nVA 1\r\ny\r\n",
    ),
    both(
        "ms a 1 MA\r\nx\r\nms a 1 MP\r\nx\r\nmg a\r\n",
        "NS\r\nNS\r\nEN\r\n",
    ),
    both(
        "ms a 1 F3\r\nm\r\nms a 1 MA F9\r\nz\r\nms a 1 MP T5\r\na\r\nmg a v f t\r\n",
        "HD\r\nHD\r\nHD\r\nVA 3 f3 t-1\r\namz\r\n",
    ),
    newer(
        APPEND_VIVIFY,
        "ms a 1 MA N30\r\nx\r\nmg a v t\r\nms a 1 MA N60\r\ny\r\nmg a v t\r\n",
        "HD\r\nVA 1 t{30}\r\nx\r\nHD\r\nVA 2 t{30}\r\nxy\r\n",
    ),
    newer(
        APPEND_VIVIFY,
        "ms a 1 MP N30\r\nx\r\nmg a v t\r\nms a 1 MP N60\r\ny\r\nmg a v t\r\n",
        "HD\r\nVA 1 t{30}\r\nx\r\nHD\r\nVA 2 t{30}\r\nyx\r\n",
    ),
    both(
        "ms a 1 MX\r\nx\r\n",
        "CLIENT_ERROR invalid mode for ms M token\r\n",
    ),
    both(
        "ms a 1 Me\r\nx\r\n",
        "CLIENT_ERROR invalid mode for ms M token\r\n",
    ),
    // C compares; with E the item gets the client's own CAS unique.
    both("ms a 1 C5\r\nx\r\nmg a\r\n", "NF\r\nEN\r\n"),
    newer(
        KNOWS_E,
        "ms a 1 E1000\r\nx\r\nmg a c\r\ngets a\r\n",
        "HD\r\nHD c1000\r\nVALUE a 0 1 1000\r\nx\r\nEND\r\n",
    ),
    newer(
        KNOWS_E,
        "ms a 1 E1000 c\r\nx\r\nms a 1 C1000 E2000 c\r\ny\r\nms a 1 C1000\r\nz\r\nmg a v c\r\n",
        "HD c1000\r\nHD c2000\r\nEX\r\nVA 1 c2000\r\ny\r\n",
    ),
    newer(
        KNOWS_E,
        "ms a 1 E1000\r\nx\r\nms a 1 MR C1000\r\ny\r\nms a 1 MR C1000 k\r\nz\r\nmg a v\r\n",
        "HD\r\nHD\r\nEX ka\r\nVA 1\r\ny\r\n",
    ),
    newer(
        KNOWS_E,
        "ms a 1 E1000\r\nx\r\nms a 1 MA C1000 E1001\r\ny\r\nms a 1 MA C1000\r\nz\r\nmg a v c\r\n",
        "HD\r\nHD\r\nEX\r\nVA 2 c1001\r\nxy\r\n",
    ),
    newer(
        KNOWS_E,
        "ms a 1 E1000\r\nx\r\ncas a 0 0 1 1000\r\ny\r\ncas a 0 0 1 1000\r\nz\r\n",
        "HD\r\nSTORED\r\nEXISTS\r\n",
    ),
    // The length is positional; S is no flag.
    both("ms a 1 S1\r\nx\r\n", "CLIENT_ERROR invalid flag\r\n"),
    both("ms a -1\r\n", "CLIENT_ERROR bad command line format\r\n"),
    both(
        "ms a 1 Fx\r\nx\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both(
        "ms a 1 F-1\r\nx\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    both(
        "ms a 1 Tx\r\nx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "ms a 1 Cx\r\nx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "ms a 1 C18446744073709551616\r\nx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both("ms a 1 k k\r\nx\r\n", "CLIENT_ERROR duplicate flag\r\n"),
    ours(
        NO_LETTER,
        "ms a 1 ? q\r\nx\r\n",
        "CLIENT_ERROR invalid flag\r\n",
    ),
    both(
        "ms a 1 O12345678901234567890123456789012\r\nx\r\n",
        "CLIENT_ERROR opaque token too long\r\n",
    ),
    newer(
        "1.6.18 answers a plain ERROR to an empty line",
        "ms a 1\r\nxyz\r\n",
        "CLIENT_ERROR bad data chunk\r\nCLIENT_ERROR bad command line format\r\n",
    ),
];

const DELETE: &[Vector] = &[
    both("md none\r\n", "NF\r\n"),
    both("md none q\r\n", "NF\r\n"),
    both(
        "md none k O1\r\nmd none O1 k\r\n",
        "NF knone O1\r\nNF O1 knone\r\n",
    ),
    both("ms a 1\r\nx\r\nmd a\r\nmg a\r\n", "HD\r\nHD\r\nEN\r\n"),
    both("ms a 1\r\nx\r\nmd a k O1\r\n", "HD\r\nHD ka O1\r\n"),
    both("ms a 1\r\nx\r\nmd a q k\r\nmg a\r\n", "HD\r\nEN\r\n"),
    both(
        "ms a 1\r\nx\r\nmd a C18446744073709551615\r\nmd a C18446744073709551615 q O1\r\nmg a\r\n",
        "HD\r\nEX\r\nEX O1\r\nHD\r\n",
    ),
    newer(
        KNOWS_E,
        "ms a 1 E500\r\nx\r\nmd a C501\r\nmd a C500\r\nmg a\r\n",
        "HD\r\nEX\r\nHD\r\nEN\r\n",
    ),
    // T alone does not keep the item.
    both("ms a 1\r\nx\r\nmd a T30\r\nmg a\r\n", "HD\r\nHD\r\nEN\r\n"),
    // x: the item stays without its value and flags.
    newer(
        KNOWS_X,
        "ms a 3 F9\r\nxyz\r\nmd a x\r\nmg a v f s\r\n",
        "HD\r\nHD\r\nVA 0 f0 s0\r\n\r\n",
    ),
    newer(
        KNOWS_X,
        "ms a 3 F9\r\nxyz\r\nmd a x T30\r\nmg a v t\r\n",
        "HD\r\nHD\r\nVA 0 t{30}\r\n\r\n",
    ),
    newer(KNOWS_X, "md none x\r\n", "NF\r\n"),
    // The time to live is the request's, the unique stays.
    newer(
        KNOWS_X,
        "ms a 3 F9 T100 E5\r\nxyz\r\nmd a x\r\nmg a v f t c\r\nmd a x T40 F7\r\nmg a v f t c\r\nms a 1 C5\r\ny\r\nmg a v\r\n",
        "HD\r\nHD\r\nVA 0 f0 t-1 c5\r\n\r\nHD\r\nVA 0 f7 t{40} c5\r\n\r\nHD\r\nVA 1\r\ny\r\n",
    ),
    newer(
        KNOWS_X,
        "ms a 3 T100 E5\r\nxyz\r\nmd a x I\r\nms a 1 C5\r\ny\r\nmd a x E6\r\nmg a t c h\r\n",
        "HD\r\nHD\r\nEX\r\nHD\r\nHD t-1 c6 h0\r\n",
    ),
    // 0 is no unique: who compares it is nobody's second writer, who gives it gives none.
    newer(
        KNOWS_E,
        "ms a 1 E5\r\nx\r\nms a 1 C0\r\ny\r\nms a 1 C0 I\r\ny\r\nms a 1 MR C0\r\ny\r\nms a 1 MA C0\r\ny\r\nmd a C0\r\nmg a v\r\n",
        "HD\r\nEX\r\nEX\r\nEX\r\nHD\r\nEX\r\nVA 2\r\nxy\r\n",
    ),
    newer(
        KNOWS_E,
        "ms n 1 E5\r\n1\r\nma n C0 v\r\nma n E0 c\r\nms n 1 C0\r\n7\r\nmg n v c C1\r\nms n 1 E0\r\n2\r\nmg n v C0\r\n",
        "HD\r\nVA 1\r\n2\r\nHD c0\r\nEX\r\nVA 1 c0\r\n3\r\nHD\r\nVA 1\r\n2\r\n",
    ),
    // What is counted in its place is not fetched by that.
    both(
        "ms n 1\r\n1\r\nma n\r\nincr n 1\r\nmg n h v\r\nmg n h\r\n",
        "HD\r\nHD\r\n3\r\nVA 1 h0\r\n3\r\nHD h1\r\n",
    ),
    newer(
        KNOWS_X,
        "ms a 3 E500\r\nxyz\r\nmd a x C499\r\nmg a v\r\n",
        "HD\r\nEX\r\nVA 3\r\nxyz\r\n",
    ),
    newer(
        KNOWS_X,
        "ms a 3\r\nxyz\r\nmd a q x I T30\r\nget a\r\n",
        "HD\r\nVALUE a 0 0\r\n\r\nEND\r\n",
    ),
    newer(
        KNOWS_E,
        "ms a 1\r\nx\r\nmd a I E77\r\nmg a c u\r\n",
        "HD\r\nHD\r\nHD c77 {*}\r\n",
    ),
    ours(NAMES_FLAGS, "md a ?\r\n", "CLIENT_ERROR invalid flag\r\n"),
    newer(
        NAMES_FLAGS,
        "md a k k\r\n",
        "CLIENT_ERROR duplicate flag\r\n",
    ),
    newer(
        NAMES_FLAGS,
        "md a Cx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    newer(
        NAMES_FLAGS,
        "md a Tx\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    both(
        "md a O12345678901234567890123456789012\r\n",
        "CLIENT_ERROR opaque token too long\r\n",
    ),
];

const ARITHMETIC: &[Vector] = &[
    both("ma none\r\n", "NF\r\n"),
    both("ma none q\r\n", "NF\r\n"),
    both(
        "ma none k O4\r\nma none O4 k v t c\r\n",
        "NF knone O4\r\nNF O4 knone\r\n",
    ),
    both(
        "ms n 2\r\n10\r\nma n\r\nmg n v\r\n",
        "HD\r\nHD\r\nVA 2\r\n11\r\n",
    ),
    both(
        "ms n 2\r\n10\r\nma n v\r\nma n v D5\r\nma n D5 v MD\r\n",
        "HD\r\nVA 2\r\n11\r\nVA 2\r\n16\r\nVA 2\r\n11\r\n",
    ),
    both(
        "ms n 2\r\n10\r\nma n v MI\r\nma n v M+\r\nma n v MD\r\nma n v M-\r\n",
        "HD\r\nVA 2\r\n11\r\nVA 2\r\n12\r\nVA 2\r\n11\r\nVA 2\r\n10\r\n",
    ),
    both(
        "ms n 2 T90\r\n10\r\nma n k t O4 v\r\n",
        "HD\r\nVA 2 kn t{90} O4\r\n11\r\n",
    ),
    both(
        "ms n 2\r\n10\r\nma n c\r\nma n q\r\nma n q v\r\nmg n v\r\n",
        "HD\r\nHD c{n}\r\nVA 2\r\n13\r\n",
    ),
    // Wraps at 2^64, stops at 0.
    both(
        "ms n 20\r\n18446744073709551615\r\nma n v\r\n",
        "HD\r\nVA 1\r\n0\r\n",
    ),
    both("ms n 1\r\n5\r\nma n v MD D6\r\n", "HD\r\nVA 1\r\n0\r\n"),
    // T sets the time to live, N and J create.
    both(
        "ms n 2\r\n10\r\nma n T60 t\r\nma n t T90\r\nmg n t\r\n",
        "HD\r\nHD t{60}\r\nHD t{60}\r\nHD t{90}\r\n",
    ),
    both(
        "ma n N0 J13 v t\r\nma n N0 J13 v t\r\n",
        "VA 2 t-1\r\n13\r\nVA 2 t-1\r\n14\r\n",
    ),
    both(
        "ma n N30 J13 v t\r\nma n N60 J0 v t\r\nmg n f\r\n",
        "VA 2 {*}\r\n13\r\nVA 2 t{30}\r\n14\r\nHD f0\r\n",
    ),
    newer(
        "1.6.18 does not keep quiet of what it creates",
        "ma n N0 v\r\nma n q N0\r\nma m q N0 J7\r\nmg m v\r\n",
        "VA 1\r\n0\r\nVA 1\r\n7\r\n",
    ),
    both(
        "ma n N0 J18446744073709551615 v k\r\nma n v\r\n",
        "VA 20 kn\r\n18446744073709551615\r\nVA 1\r\n0\r\n",
    ),
    both(
        "ms n 2\r\n10\r\nma n C18446744073709551615 k\r\nma n C18446744073709551615 q v\r\nmg n v\r\n",
        "HD\r\nEX kn\r\nEX\r\nVA 2\r\n10\r\n",
    ),
    newer(
        KNOWS_E,
        "ms n 2 E700\r\n10\r\nma n C700 E900 c v\r\nma n C700\r\nmg n v c\r\n",
        "HD\r\nVA 2 c900\r\n11\r\nEX\r\nVA 2 c900\r\n11\r\n",
    ),
    newer(
        KNOWS_E,
        "ma n N0 J3 E900 c\r\nmg n v c\r\n",
        "HD c900\r\nVA 1 c900\r\n3\r\n",
    ),
    // Faults.
    both(
        "ms n 1\r\nx\r\nma n\r\nma n q\r\n",
        "HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    both(
        "ma n MX\r\n",
        "CLIENT_ERROR invalid mode for ma M token\r\n",
    ),
    both("ma n Dx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    both("ma n D-1\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    both(
        "ma n D18446744073709551616\r\n",
        "CLIENT_ERROR invalid or duplicate flag\r\n",
    ),
    both("ma n Jx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    both("ma n Nx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    both("ma n Tx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    both("ma n Cx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    ours(
        NO_LETTER,
        "ma n ?\r\n",
        "CLIENT_ERROR invalid or duplicate flag\r\n",
    ),
    both("ma n v v\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    both(
        "ma n O12345678901234567890123456789012 N0\r\n",
        "CLIENT_ERROR opaque token too long\r\n",
    ),
];

#[test]
fn misc_vectors() {
    run_vectors(&Server::start(&[]), MISC);
}

#[test]
fn get_vectors() {
    run_vectors(&Server::start(&[]), GET);
}

#[test]
fn base64_vectors() {
    run_vectors(&Server::start(&[]), BASE64);
}

#[test]
fn set_vectors() {
    run_vectors(&Server::start(&[]), SET);
}

#[test]
fn delete_vectors() {
    run_vectors(&Server::start(&[]), DELETE);
}

#[test]
fn arithmetic_vectors() {
    run_vectors(&Server::start(&[]), ARITHMETIC);
}

/// The answer to one mg without v: its status, the returned flags, and the marks W, X, Z, whose order is not promised.
#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    flags: Vec<String>,
    marks: String,
}

#[track_caller]
fn mg(conn: &mut Conn, request: &str) -> Answer {
    let line = conn.ask(format!("mg {request}\r\n"));
    let mut words = line.split(' ');
    let mut status = words
        .next()
        .expect("split gives one word at least")
        .to_string();
    if status == "VA" {
        let len = words.next().expect("VA has a length");
        let value = conn.take(len.parse().expect("a length"));
        conn.expect("\r\n");
        status = format!("VA {}", String::from_utf8_lossy(&value));
    }
    let (marks, flags): (Vec<&str>, Vec<&str>) =
        words.partition(|word| ["W", "X", "Z"].contains(word));
    let sorted: BTreeSet<&str> = marks.iter().copied().collect();
    assert_eq!(sorted.len(), marks.len(), "a mark twice: {line}");
    let marks = sorted.into_iter().collect();
    Answer {
        status,
        flags: flags.into_iter().map(str::to_string).collect(),
        marks,
    }
}

#[track_caller]
fn expect_mg(conn: &mut Conn, request: &str, status: &str, flags: &[&str], marks: &str) {
    let want = Answer {
        status: status.to_string(),
        flags: flags.iter().map(|flag| flag.to_string()).collect(),
        marks: marks.to_string(),
    };
    let mut answer = mg(conn, request);
    for (flag, want) in answer.flags.iter_mut().zip(&want.flags) {
        // The second may have turned since the item was stored.
        let to_live = |flag: &str| flag.strip_prefix('t').and_then(|t| t.parse::<u64>().ok());
        if to_live(want).is_some_and(|t| t > 0 && to_live(flag) == Some(t - 1)) {
            flag.clone_from(want);
        }
    }
    assert_eq!(answer, want, "mg {request}");
}

/// N: the first caller that misses gets an empty item and the win, all others know that someone is at it.
#[test]
fn a_miss_is_won_once() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    expect_mg(&mut conn, "k N30 t v", "VA ", &["t30"], "W");
    expect_mg(&mut conn, "k N30 t v", "VA ", &["t30"], "Z");
    expect_mg(&mut conn, "k t", "HD", &["t30"], "Z");
    // The winner stores; every mark is gone.
    conn.round("ms k 3 T100\r\nnew\r\n", "HD\r\n");
    expect_mg(&mut conn, "k N30 t v", "VA new", &["t100"], "");
    // A plain set clears the win as well.
    expect_mg(&mut conn, "k2 N0 t", "HD", &["t-1"], "W");
    expect_mg(&mut conn, "k2 N0", "HD", &[], "Z");
    conn.round("set k2 0 0 1\r\nx\r\n", "STORED\r\n");
    expect_mg(&mut conn, "k2 N0 v", "VA x", &[], "");
    // So does the winner's store with the CAS unique that it was given.
    let won = mg(&mut conn, "k3 c N30");
    assert_eq!(won.marks, "W");
    let unique = won.flags[0].strip_prefix('c').expect("c").to_string();
    conn.round(
        format!(
            "ms k3 1 C{}\r\nx\r\n",
            unique.parse::<u64>().expect("a number") + 1
        ),
        "EX\r\n",
    );
    expect_mg(&mut conn, "k3 v", "VA ", &[], "Z");
    conn.round(format!("ms k3 1 C{unique}\r\nx\r\n"), "HD\r\n");
    expect_mg(&mut conn, "k3 v", "VA x", &[], "");
    // add does not store over it: it is an item.
    expect_mg(&mut conn, "k4 N30", "HD", &[], "W");
    conn.round("add k4 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    // Text clients see an empty value.
    conn.round("get k4\r\n", "VALUE k4 0 0\r\n\r\nEND\r\n");
    // A win on a miss is no miss: q does not hide it.
    expect_mg(
        &mut conn,
        "k5 q N30 k O9 s",
        "HD",
        &["kk5", "O9", "s0"],
        "W",
    );
}

/// R: with less than so many seconds to live one caller is asked to fetch the item anew.
#[test]
fn a_recache_is_won_once() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("ms k 3 T20\r\nold\r\n", "HD\r\n");
    expect_mg(&mut conn, "k R5 v", "VA old", &[], "");
    expect_mg(&mut conn, "k R30 v", "VA old", &[], "W");
    expect_mg(&mut conn, "k R30 v", "VA old", &[], "Z");
    expect_mg(&mut conn, "k v", "VA old", &[], "Z");
    expect_mg(&mut conn, "k R5", "HD", &[], "Z");
    conn.round("ms k 3 T90\r\nnew\r\n", "HD\r\n");
    expect_mg(&mut conn, "k R30 v", "VA new", &[], "");
    // An item without an end is never due, a miss wins nothing.
    conn.round("ms k 1 T0\r\nx\r\n", "HD\r\n");
    expect_mg(&mut conn, "k R1000000", "HD", &[], "");
    expect_mg(&mut conn, "none R30", "EN", &[], "");
}

/// md I: the value stays to be served, one caller is asked to fetch it anew.
#[test]
fn a_stale_item_is_served_and_won_once() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("ms k 3\r\nold\r\n", "HD\r\n");
    let before = conn.cas_of("k");
    conn.round("md k I T30\r\n", "HD\r\n");
    expect_mg(&mut conn, "k t v", "VA old", &["t30"], "WX");
    expect_mg(&mut conn, "k t v", "VA old", &["t30"], "XZ");
    assert_ne!(conn.cas_of("k"), before, "md I changes the CAS unique");
    // Marked anew: won anew.
    conn.round("md k I\r\n", "HD\r\n");
    let stale = mg(&mut conn, "k c v t");
    assert_eq!(stale.marks, "WX");
    assert!(
        ["t30", "t29", "t28"].contains(&stale.flags[1].as_str()),
        "{stale:?}"
    );
    let unique: u64 = stale.flags[0][1..].parse().expect("a CAS unique");
    // A store with an older unique is refused; with I it is taken and stays stale.
    conn.round("ms k 3 C1 T90\r\nlow\r\n", "EX\r\n");
    expect_mg(&mut conn, "k v", "VA old", &[], "XZ");
    conn.round("ms k 3 I C1 T90\r\nlow\r\n", "HD\r\n");
    let stale = mg(&mut conn, "k v");
    assert_eq!(
        (stale.status.as_str(), stale.marks.contains('X')),
        ("VA low", true),
        "{stale:?}"
    );
    // A unique above the item's is refused even with I.
    conn.round(
        format!("ms k 4 I C{}\r\nhigh\r\n", unique + 1_000_000),
        "EX\r\n",
    );
    // The right one makes it fresh.
    let now = conn.cas_of("k");
    conn.round(format!("ms k 3 C{now} T60\r\nnew\r\n"), "HD\r\n");
    expect_mg(&mut conn, "k v t", "VA new", &["t60"], "");
    // A plain delete removes a stale item, q says nothing.
    conn.round("md k I q\r\nmd k q\r\nmg k\r\n", "EN\r\n");
    conn.round("md k I\r\n", "NF\r\n");
}

/// ms I with a unique above the item's, on an item that was never stale, and without C.
#[test]
fn ms_invalidate_needs_an_older_unique() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("ms k 1\r\na\r\n", "HD\r\n");
    let unique = conn.cas_of("k");
    conn.round(format!("ms k 1 I C{unique}\r\nb\r\n"), "HD\r\n");
    expect_mg(&mut conn, "k v", "VA b", &[], "");
    conn.round(format!("ms k 1 I C{unique}\r\nc\r\n"), "HD\r\n");
    expect_mg(&mut conn, "k v", "VA c", &[], "WX");
    conn.round("ms k 1 I\r\nd\r\n", "HD\r\n");
    expect_mg(&mut conn, "k v", "VA d", &[], "");
}

/// A tombstone: md x with I and T keeps the key, tells of its death and lets one caller win.
#[test]
fn a_tombstone_can_be_won() {
    if !is_ketch() {
        return;
    }
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.round("ms k 3 F5\r\nold\r\n", "HD\r\n");
    conn.round("md k x I T30\r\n", "HD\r\n");
    expect_mg(&mut conn, "k v f t", "VA ", &["f0", "t30"], "WX");
    expect_mg(&mut conn, "k v", "VA ", &[], "XZ");
    conn.round("ms k 3\r\nnew\r\n", "HD\r\n");
    expect_mg(&mut conn, "k v", "VA new", &[], "");
}

/// A pipeline of quiet gets closed by a no-op: hits in order, misses without a trace.
#[test]
fn a_quiet_pipeline_of_5_000_gets() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let (mut stores, mut gets, mut replies) = (String::new(), String::new(), String::new());
    for i in 0..5000 {
        if i % 7 == 0 {
            stores += &format!("ms key{i} 4 q\r\n{i:04}\r\n");
            replies += &format!("VA 4 kkey{i} O{i}\r\n{i:04}\r\n");
        }
        gets += &format!("mg key{i} v q k O{i}\r\n");
    }
    conn.round(stores + "mn\r\n", "MN\r\n");
    conn.round(gets + "mn\r\n", replies + "MN\r\n");
}

/// Keys of the greatest length, plain and in base64 (whose 250 bytes are 188 decoded).
#[test]
fn the_longest_keys() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let longest = "k".repeat(250);
    conn.round(
        format!("ms {longest} 1 k\r\nx\r\n"),
        format!("HD k{longest}\r\n"),
    );
    conn.round(
        format!("mg {longest} v k\r\n"),
        format!("VA 1 k{longest}\r\nx\r\n"),
    );
    conn.round(format!("md {longest} k\r\n"), format!("HD k{longest}\r\n"));
    for line in ["mg {k}k", "md {k}k", "me {k}k"] {
        conn.round(
            line.replace("{k}", &longest) + "\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        );
    }
    let coded = "QUJD".repeat(62);
    conn.round(
        format!("ms {coded} 1 b k\r\nx\r\n"),
        format!("HD k{coded} b\r\n"),
    );
    conn.round(
        format!("get {}\r\n", "ABC".repeat(62)),
        format!("VALUE {} 0 1\r\nx\r\nEND\r\n", "ABC".repeat(62)),
    );
    conn.round(
        format!("mg {coded} b k v\r\n"),
        format!("VA 1 k{coded} b\r\nx\r\n"),
    );
}

/// Large values take the way without a copy; the head must stand right before them all the same.
#[test]
fn large_values() {
    let server = Server::start(&["-m", "128"]);
    let mut conn = server.connect();
    for size in [5_000, 70_000, 1_000_000] {
        let value = vec![b'm'; size];
        conn.send([format!("ms big {size} c\r\n").as_bytes(), &value, b"\r\n"].concat());
        conn.expect_like("HD c{n}\r\n");
        let batch = "mg big s v k\r\nmg none\r\nmg big\r\n".repeat(3);
        conn.send(batch);
        for _ in 0..3 {
            conn.expect(format!("VA {size} s{size} kbig\r\n"));
            conn.expect(&value);
            conn.expect("\r\nEN\r\nHD\r\n");
        }
    }
}

/// Modes and arguments with a second letter.
#[test]
fn a_mode_is_its_first_letter() {
    let vectors = [
        newer(
            MODE_LENGTH,
            "ms a 1 M\r\nx\r\n",
            "CLIENT_ERROR invalid mode for ms M token\r\n",
        ),
        newer(
            MODE_LENGTH,
            "ma a M\r\n",
            "CLIENT_ERROR invalid mode for ma M token\r\n",
        ),
    ];
    run_vectors(&Server::start(&[]), &vectors);
}
