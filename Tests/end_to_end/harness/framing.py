# SPDX-License-Identifier: Apache-2.0
"""Requests whose ends may be read in several ways (RFC 9112, sections 5 to 7 and 11.2): one table, for whoever wants to know how they are
read. In each `@` stands for a name of four letters, which is another one each time, and a GET follows which nobody may lose or hide."""

NAME_BYTES = 4
#: A form of 15 bytes, as its length and as one chunk.
FORM = b"key=@b&val=1"
LENGTH = len(FORM) - 1 + NAME_BYTES
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (LENGTH, FORM)
#: What an attacker wants to have done under another's name.
HIDDEN = b"POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: %d\r\n\r\nkey=@h&val=1" % LENGTH
HIDDEN_GET = b"GET /route?key=@c HTTP/1.1\r\nHost: kv\r\n\r\n"
#: What the next client sends.
NEXT = b"GET /route?key=@a HTTP/1.1\r\nHost: kv\r\n\r\n"

CL = b"Content-Length: %d" % LENGTH
TE = b"Transfer-Encoding: chunked"
EMPTY = b"0\r\n\r\n"
END = b"\r\n\r\n"


def _post(name, fields, body):
    """A POST with these header fields, beside Host."""
    return name, b"\r\n".join([b"POST /route HTTP/1.1", b"Host: kv", *fields]) + END + body


def _get(name, line=b"GET /route?key=@c HTTP/1.1", fields=(b"Host: kv",)):
    return name, b"\r\n".join([line, *fields]) + END


def _chunks(name, body):
    return _post(f"chunks: {name}", [TE], body)


def _length(name, value, body=FORM):
    return _post(f"length: {name}", [b"Content-Length:" + value], body)


def _coding(name, value, body=CHUNKED):
    return _post(f"coding: {name}", [b"Transfer-Encoding:" + value], body)


#: Name and bytes.
VECTORS = [
    # What is as it should be
    _post("a form with its length", [CL], FORM),
    _post("a form in one chunk", [TE], CHUNKED),
    _get("a read"),
    ("two requests in one piece", NEXT + b"POST /route HTTP/1.1\r\nHost: kv\r\n" + CL + END + FORM),
    ("a form, and a form in chunks", HIDDEN + b"POST /route HTTP/1.1\r\nHost: kv\r\n" + TE + END + CHUNKED),
    ("blank lines before a request", b"\r\n\r\n" + HIDDEN_GET),
    ("one LF before a request", b"\n" + HIDDEN_GET),
    ("a request behind CR CR LF", b"\r\r\n" + HIDDEN_GET),

    # Both lengths, in either order
    _post("both lengths", [CL, TE], CHUNKED),
    _post("both lengths, chunked first", [TE, CL], CHUNKED),
    _post("both lengths, the body plain", [CL, TE], FORM),
    _post("CL.TE: a request behind the last chunk", [b"Content-Length: %d" % (len(EMPTY) + len(HIDDEN)), TE], EMPTY + HIDDEN),
    _post("TE.CL: a request in a chunk", [b"Content-Length: 4", TE], b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN) + 2 * (NAME_BYTES - 1), HIDDEN)),
    _post("both lengths, the length 0", [b"Content-Length: 0", TE], CHUNKED),
    _post("both lengths, in small letters", [b"content-length: %d" % LENGTH, b"transfer-encoding: chunked"], CHUNKED),
    _post("both lengths, the coding identity", [CL, b"Transfer-Encoding: identity"], FORM),
    _post("both lengths, the coding unknown", [CL, b"Transfer-Encoding: xchunked"], FORM),
    _post("both lengths, the coding empty", [CL, b"Transfer-Encoding:"], FORM),
    _post("both lengths, Content-Length hidden by an underscore", [b"Content_Length: 3", TE], CHUNKED),
    _post("Transfer_Encoding with an underscore", [CL, b"Transfer_Encoding: chunked"], FORM),
    _get("a read with both lengths", fields=(b"Host: kv", b"Content-Length: 5", TE)),

    # Lengths
    _post("two equal lengths", [CL, CL], FORM),
    _post("two different lengths", [CL, b"Content-Length: %d" % (LENGTH + len(HIDDEN_GET))], FORM + HIDDEN_GET),
    _post("two lengths, the first 0", [b"Content-Length: 0", CL], FORM),
    _post("two lengths, the second 0", [CL, b"Content-Length: 0"], FORM),
    _post("two equal lengths with another field between", [CL, b"X: 1", CL], FORM),
    _length("a list of equal ones", b" %d, %d" % (LENGTH, LENGTH)),
    _length("a list of different ones", b" %d, 5" % LENGTH),
    _length("a list with an empty element", b" %d," % LENGTH),
    _length("with a sign", b" +%d" % LENGTH),
    _length("negative", b" -%d" % LENGTH),
    _length("minus zero", b" -0", b""),
    _length("hexadecimal", b" 0x%x" % LENGTH),
    _length("octal", b" 0o17"),
    _length("with leading zeros", b" 0000%d" % LENGTH),
    _length("with many leading zeros", b" " + b"0" * 40 + b"%d" % LENGTH),
    _length("with a fraction", b" %d.0" % LENGTH),
    _length("with an exponent", b" 1e1"),
    _length("with an underscore", b" 1_5"),
    _length("with a blank inside", b" 1 5"),
    _length("with a tab inside", b" 1\t5"),
    _length("in quotation marks", b" \"%d\"" % LENGTH),
    _length("empty", b"", b""),
    _length("a blank", b" ", b""),
    _length("a word", b" five"),
    _length("without a blank", b"%d" % LENGTH),
    _length("behind a tab", b"\t%d" % LENGTH),
    _length("behind many blanks", b"     %d" % LENGTH),
    _length("before blanks", b" %d   " % LENGTH),
    _length("before a tab", b" %d\t" % LENGTH),
    _length("before a form feed", b" %d\x0c" % LENGTH),
    _length("behind a vertical tab", b"\x0b%d" % LENGTH),
    _length("before a NUL", b" %d\0" % LENGTH),
    _length("with a NUL inside", b" 1\x005"),
    _length("in Arabic digits", " ١٥".encode()),
    _length("in wide digits", " １５".encode()),
    _length("2^64 + 15", b" 18446744073709551631"),
    _length("2^63", b" 9223372036854775808"),
    _length("2^32 + 15", b" 4294967311"),
    _length("of a hundred digits", b" " + b"9" * 100),
    _length("with a semicolon", b" %d;x=1" % LENGTH),
    _length("folded", b"\r\n %d" % LENGTH),
    _length("folded behind a digit", b" 1\r\n 5"),
    _post("a length of a read's request", [b"Content-Length: %d" % (len(HIDDEN_GET) + NAME_BYTES - 1)], HIDDEN_GET),
    _get("a read with a body", fields=(b"Host: kv", b"Content-Length: %d" % (len(HIDDEN_GET) + NAME_BYTES - 1))),
    ("a read with a body, and a read", b"GET /route?key=@c HTTP/1.1\r\nHost: kv\r\n" + CL + END + FORM),
    ("a read with a body in chunks", b"GET /route?key=@c HTTP/1.1\r\nHost: kv\r\n" + TE + END + CHUNKED),
    ("DELETE with a body", b"DELETE /route?key=@d HTTP/1.1\r\nHost: kv\r\n" + CL + END + FORM),
    ("HEAD with a body", b"HEAD /route?key=@c HTTP/1.1\r\nHost: kv\r\nContent-Length: 5" + END + b"12345"),
    ("OPTIONS with a body", b"OPTIONS /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 5" + END + b"12345"),
    ("TRACE with a body", b"TRACE /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 5" + END + b"12345"),
    _post("no length at all", [], FORM),
    _post("no length, and a request", [], HIDDEN),

    # Names of fields
    _post("blank before the colon of a length", [b"Content-Length : %d" % LENGTH], FORM),
    _post("tab before the colon of a length", [b"Content-Length\t: %d" % LENGTH], FORM),
    _post("blank before the colon of a coding", [b"Transfer-Encoding : chunked"], CHUNKED),
    _post("tab before the colon of a coding", [b"Transfer-Encoding\t: chunked"], CHUNKED),
    _post("blank before the colon of a coding, and a length", [CL, b"Transfer-Encoding : chunked"], FORM),
    _post("blank before the name", [b" Transfer-Encoding: chunked"], CHUNKED),
    _post("blank before the name, and a length", [CL, b" Transfer-Encoding: chunked"], FORM),
    _post("a NUL in a name", [b"Content\0-Length: 3", CL], FORM),
    _post("a NUL behind a name", [CL, b"Transfer-Encoding\0: chunked"], FORM),
    _post("a byte above ASCII in a name", [CL, b"Transfer-Encoding\xa0: chunked"], FORM),
    _post("a form feed before a name", [CL, b"\x0cTransfer-Encoding: chunked"], FORM),
    _post("an empty name", [CL, b": chunked"], FORM),
    _post("an empty name before a length (CVE-2023-25725)", [b": x", CL], FORM),
    _post("a line without a colon", [CL, b"Transfer-Encoding chunked"], FORM),
    _post("a blank inside a name", [CL, b"Transfer Encoding: chunked"], FORM),
    _post("parentheses in a name", [CL, b"Transfer-Encoding(x): chunked"], FORM),
    _post("quotation marks around a name", [CL, b"\"Transfer-Encoding\": chunked"], FORM),
    _post("a coding in capitals", [b"TRANSFER-ENCODING: CHUNKED"], CHUNKED),
    _post("a name that goes on behind a CR", [CL, b"X: 1\rTransfer-Encoding: chunked"], FORM),
    _post("a field behind a bare LF", [CL, b"X: 1\nTransfer-Encoding: chunked"], FORM),
    _post("a length behind a bare LF", [b"X: 1\nContent-Length: %d" % LENGTH], FORM),
    _post("a field behind LF CR", [CL, b"X: 1\n\rTransfer-Encoding: chunked"], FORM),
    _post("a field behind CR CR LF", [CL, b"X: 1\r", TE], FORM),
    _post("a folded field that is a coding", [CL, b"X: 1\r\n Transfer-Encoding: chunked"], FORM),
    _post("a coding folded by a tab", [b"Transfer-Encoding:\r\n\tchunked"], CHUNKED),
    _post("a coding folded by a blank", [b"Transfer-Encoding:\r\n chunked"], CHUNKED),
    _post("a coding folded in its middle", [b"Transfer-Encoding: chu\r\n nked"], CHUNKED),
    _post("a NUL in a value", [CL, b"X: 1\0Transfer-Encoding: chunked"], FORM),
    _post("a name of 255 letters (CVE-2021-40346)", [b"Content-Length0" + b"a" * 240 + b":", CL], FORM),
    _post("a name of 270 letters that begins as a length", [b"Content-Length0" + b"a" * 255 + b":", CL], HIDDEN_GET),

    # Codings
    _coding("unknown", b" xchunked"),
    _coding("unknown, before chunked", b" gzip, chunked"),
    _coding("chunked, not last", b" chunked, gzip"),
    _coding("chunked, then identity", b" chunked, identity"),
    _coding("identity, then chunked", b" identity, chunked"),
    _coding("identity", b" identity", FORM),
    _coding("chunked twice in a list", b" chunked, chunked"),
    _coding("chunked with an empty element before", b" , chunked"),
    _coding("chunked with an empty element behind", b" chunked,"),
    _coding("in quotation marks", b" \"chunked\""),
    _coding("with a parameter", b" chunked;q=1"),
    _coding("in mixed letters", b" cHuNkEd"),
    _coding("without a blank", b"chunked"),
    _coding("behind a tab", b"\tchunked"),
    _coding("behind a vertical tab", b"\x0bchunked"),
    _coding("before a blank", b" chunked "),
    _coding("before a tab", b" chunked\t"),
    _coding("before a form feed", b" chunked\x0c"),
    _coding("before a NUL", b" chunked\0"),
    _coding("before a CR", b" chunked\r"),
    _coding("cut short", b" chunk"),
    _coding("two words", b" chunked chunked"),
    _coding("a long s", " ſchunked".encode()),
    _coding("empty", b"", b""),
    _post("chunked in two fields", [TE, TE], CHUNKED),
    _post("chunked, then identity in a field", [TE, b"Transfer-Encoding: identity"], CHUNKED),
    _post("identity, then chunked in a field", [b"Transfer-Encoding: identity", TE], CHUNKED),
    _post("an unknown coding, then chunked in a field", [b"Transfer-Encoding: x", TE], CHUNKED),
    _post("chunked, then an unknown coding in a field", [TE, b"Transfer-Encoding: x"], CHUNKED),

    # Chunks
    _chunks("in two", b"7\r\nkey=@b\r\n".replace(b"7", b"%x" % (4 + NAME_BYTES + 1)) + b"6\r\n&val=1\r\n0\r\n\r\n"),
    _chunks("a size in capitals", CHUNKED.replace(b"f\r\n", b"F\r\n", 1)),
    _chunks("a size with leading zeros", b"000" + CHUNKED),
    _chunks("a size with many leading zeros", b"0" * 40 + CHUNKED),
    _chunks("a size with 0x", b"0x" + CHUNKED),
    _chunks("a size with a sign", b"+" + CHUNKED),
    _chunks("a negative size", b"-" + CHUNKED),
    _chunks("an empty size", b"\r\n" + FORM + b"\r\n0\r\n\r\n"),
    _chunks("a size behind a blank", b" " + CHUNKED),
    _chunks("a size before a blank", CHUNKED.replace(b"f\r\n", b"f \r\n", 1)),
    _chunks("a size before a tab", CHUNKED.replace(b"f\r\n", b"f\t\r\n", 1)),
    _chunks("a size with a letter beyond f", CHUNKED.replace(b"f\r\n", b"g\r\n", 1)),
    _chunks("a size with an underscore", CHUNKED.replace(b"f\r\n", b"0_f\r\n", 1)),
    _chunks("a size with a comma", CHUNKED.replace(b"f\r\n", b"f,0\r\n", 1)),
    _chunks("a size with a NUL", CHUNKED.replace(b"f\r\n", b"f\0\r\n", 1)),
    _chunks("a size of 2^64 + 15", CHUNKED.replace(b"f\r\n", b"1000000000000000f\r\n", 1)),
    _chunks("a size of 2^64 - 1", CHUNKED.replace(b"f\r\n", b"ffffffffffffffff\r\n", 1)),
    _chunks("a size of 2^63", CHUNKED.replace(b"f\r\n", b"8000000000000000\r\n", 1)),
    _chunks("a size of 2^32 + 15", CHUNKED.replace(b"f\r\n", b"10000000f\r\n", 1)),
    _chunks("an extension", CHUNKED.replace(b"f\r\n", b"f;x=y\r\n", 1)),
    _chunks("an extension without a value", CHUNKED.replace(b"f\r\n", b"f;x\r\n", 1)),
    _chunks("an extension behind a blank", CHUNKED.replace(b"f\r\n", b"f ;x=y\r\n", 1)),
    _chunks("an extension in quotation marks", CHUNKED.replace(b"f\r\n", b"f;x=\"y;z\"\r\n", 1)),
    _chunks("an extension with a quoted line end", CHUNKED.replace(b"f\r\n", b"f;x=\"\r\n\"\r\n", 1)),
    _chunks("an extension with a bare CR", CHUNKED.replace(b"f\r\n", b"f;x\ry\r\n", 1)),
    _chunks("an extension that ends in a bare LF", CHUNKED.replace(b"f\r\n", b"f;x\n", 1)),
    _chunks("an extension with a NUL", CHUNKED.replace(b"f\r\n", b"f;\0\r\n", 1)),
    _chunks("an extension of the last one", CHUNKED.replace(b"\r\n0\r\n", b"\r\n0;x=y\r\n", 1)),
    _chunks("a size behind a bare LF", CHUNKED.replace(b"f\r\n", b"f\n", 1)),
    _chunks("a size behind a bare CR", CHUNKED.replace(b"f\r\n", b"f\r", 1)),
    _chunks("a size behind CR CR LF", CHUNKED.replace(b"f\r\n", b"f\r\r\n", 1)),
    _chunks("data that end in a bare LF", CHUNKED.replace(b"1\r\n0", b"1\n0", 1)),
    _chunks("data that end in a bare CR", CHUNKED.replace(b"1\r\n0", b"1\r0", 1)),
    _chunks("data without an end", CHUNKED.replace(b"1\r\n0", b"10", 1)),
    _chunks("data that are longer than their size", CHUNKED.replace(b"f\r\n", b"5\r\n", 1)),
    _chunks("data that are shorter than their size", CHUNKED.replace(b"f\r\n", b"10\r\n", 1)),
    _chunks("two bytes of data instead of a line end", CHUNKED.replace(b"1\r\n0", b"1XX0", 1)),
    _chunks("the last one of many zeros", CHUNKED.replace(b"\r\n0\r\n", b"\r\n00000\r\n", 1)),
    _chunks("the last one ends in LF LF", CHUNKED.replace(b"0\r\n\r\n", b"0\n\n", 1)),
    _chunks("the last one ends in CR LF LF", CHUNKED.replace(b"0\r\n\r\n", b"0\r\n\n", 1)),
    _chunks("the last one without its empty line", CHUNKED.replace(b"0\r\n\r\n", b"0\r\n", 1)),
    _chunks("a trailer", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n", 1)),
    _chunks("a length in a trailer", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nContent-Length: %d\r\n\r\n" % LENGTH, 1)),
    _chunks("a coding in a trailer", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 1)),
    _chunks("a Host in a trailer", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nHost: other\r\n\r\n", 1)),
    _chunks("a trailer without a colon", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nGET /route?key=@c HTTP/1.1\r\n\r\n", 1)),
    _chunks("a folded trailer", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX: 1\r\n 2\r\n\r\n", 1)),
    _chunks("a trailer with a bare LF", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX: 1\n\r\n", 1)),
    _chunks("a trailer with a NUL", CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX\0: 1\r\n\r\n", 1)),
    _chunks("none at all", b""),
    _chunks("a request instead", HIDDEN),

    # Ends of lines, and of heads
    ("a head of bare LFs", b"POST /route HTTP/1.1\nHost: kv\n" + CL + b"\n\n" + FORM),
    ("a read's head of bare LFs", b"GET /route?key=@c HTTP/1.1\nHost: kv\n\n"),
    ("a head of bare CRs", b"GET /route?key=@c HTTP/1.1\rHost: kv\r\r"),
    ("a bare LF behind the request line", b"GET /route?key=@c HTTP/1.1\nHost: kv\r\n\r\n"),
    ("a head that ends in CR LF LF", b"GET /route?key=@c HTTP/1.1\r\nHost: kv\r\n\n"),
    ("a head that ends in LF CR LF", b"GET /route?key=@c HTTP/1.1\r\nHost: kv\n\r\n"),
    ("a head that ends in CR LF CR", b"POST /route HTTP/1.1\r\nHost: kv\r\n" + CL + b"\r\n\r" + FORM),
    ("a CR within a head's end", b"POST /route HTTP/1.1\r\nHost: kv\r\n" + CL + b"\r\n\r\r\n" + FORM),
    ("a bare CR in the target", b"GET /route?key=@c\rx HTTP/1.1\r\nHost: kv\r\n\r\n"),

    # The request line
    _get("a NUL in the target", b"GET /route?key=@c\0 HTTP/1.1"),
    _get("a tab in the target", b"GET /route?key=@c\tx HTTP/1.1"),
    _get("a blank in the target", b"GET /route?key=@c x HTTP/1.1"),
    _get("two blanks before the target", b"GET  /route?key=@c HTTP/1.1"),
    _get("two blanks behind the target", b"GET /route?key=@c  HTTP/1.1"),
    _get("tabs for blanks", b"GET\t/route?key=@c\tHTTP/1.1"),
    _get("a blank behind the version", b"GET /route?key=@c HTTP/1.1 "),
    _get("a blank before the method", b" GET /route?key=@c HTTP/1.1"),
    _get("a fragment", b"GET /route?key=@c#x HTTP/1.1"),
    _get("a byte above ASCII in the target", b"GET /route?key=@c\xff HTTP/1.1"),
    _get("absolute form", b"GET http://kv/route?key=@c HTTP/1.1"),
    _get("absolute form to another host", b"GET http://other/route?key=@c HTTP/1.1"),
    _get("no target", b"GET HTTP/1.1"),
    _get("asterisk form", b"OPTIONS * HTTP/1.1"),
    _get("an unknown method", b"SMUGGLE /route?key=@c HTTP/1.1"),
    _get("a method in small letters", b"get /route?key=@c HTTP/1.1"),
    _get("a method with a colon", b"GET: /route?key=@c HTTP/1.1"),
    _get("PRI", b"PRI * HTTP/2.0"),
    _get("CONNECT", b"CONNECT kv:5000 HTTP/1.1"),
    _get("HTTP/0.9", b"GET /route?key=@c", ()),
    _get("HTTP/0.9 with its version", b"GET /route?key=@c HTTP/0.9"),
    _get("HTTP/1.2", b"GET /route?key=@c HTTP/1.2"),
    _get("HTTP/2.0", b"GET /route?key=@c HTTP/2.0"),
    _get("HTTP/1.10", b"GET /route?key=@c HTTP/1.10"),
    _get("HTTP/01.1", b"GET /route?key=@c HTTP/01.1"),
    _get("HTTP/1,1", b"GET /route?key=@c HTTP/1,1"),
    _get("http/1.1", b"GET /route?key=@c http/1.1"),
    _get("HTTP /1.1", b"GET /route?key=@c HTTP /1.1"),
    _get("ICY/1.1", b"GET /route?key=@c ICY/1.1"),
    ("HTTP/1.0 with a length", b"POST /route HTTP/1.0\r\nHost: kv\r\n" + CL + END + FORM),
    ("HTTP/1.0 with chunks", b"POST /route HTTP/1.0\r\nHost: kv\r\n" + TE + END + CHUNKED),
    ("HTTP/1.0 with chunks and a length", b"POST /route HTTP/1.0\r\nHost: kv\r\n" + TE + b"\r\n" + CL + END + CHUNKED),
    ("HTTP/1.0, kept alive, with chunks", b"POST /route HTTP/1.0\r\nHost: kv\r\nConnection: keep-alive\r\n" + TE + END + CHUNKED),

    # Hosts and connections
    _get("no Host", fields=()),
    _get("two Hosts", fields=(b"Host: kv", b"Host: other")),
    _get("an empty Host", fields=(b"Host:",)),
    _get("a Host with a blank", fields=(b"Host: kv other",)),
    _get("a Host with a comma", fields=(b"Host: kv, other",)),
    _get("a length that the connection names", fields=(b"Host: kv", b"Connection: Content-Length", b"Content-Length: 5")),
    _post("a coding that the connection names", [b"Connection: Transfer-Encoding", TE], CHUNKED),
    _post("a connection that closes", [b"Connection: close", CL], FORM + HIDDEN),
    _post("a connection that closes, in a list", [b"Connection: x, close", CL], FORM + HIDDEN),
    _post("a connection that becomes another", [b"Connection: Upgrade", b"Upgrade: h2c", CL], FORM + HIDDEN),
    _get("a read that asks for an upgrade", fields=(b"Host: kv", b"Connection: Upgrade", b"Upgrade: websocket")),
    _post("Expect: 100-continue", [b"Expect: 100-continue", CL], FORM),
    _post("Expect: 100-continue, in chunks", [b"Expect: 100-continue", TE], CHUNKED),
    _post("Expect something else", [b"Expect: 200-ok", CL], FORM),
    _post("Expect: 100-continue of a body that is too large", [b"Expect: 100-continue", b"Content-Length: 99999999"], HIDDEN),
    _get("a header of 40 KiB", fields=(b"Host: kv", b"X: " + b"x" * 40_000)),
    _get("200 fields", fields=(b"Host: kv", *[b"X%d: 1" % number for number in range(200)])),
    _get("a target of 20 KiB", b"GET /route?key=@c&x=" + b"x" * 20_000 + b" HTTP/1.1"),
    ("a form that is cut short", b"POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 200" + END + FORM),
]


def vector_bytes(template, name):
    """The bytes of a vector, and of the request that follows it, for a name of four letters."""
    assert len(name) == NAME_BYTES
    return (template + NEXT).replace(b"@", name)
