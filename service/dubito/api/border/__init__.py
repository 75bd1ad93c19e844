"""What every request passes on its way in, and every reply on its way out.

context.py       request id, the outermost frame of a request, unforeseen errors
headers.py       one header of a request
headers_only.py  HEAD as GET without its body
draining.py      the rest of a body, before a refusal is sent
auth.py          keys: who asks, and whether they may
browsers.py      pages of other origins, headers against misuse in browsers
access.py        the application that a request is for
errors.py        the one error body
bodies.py        reading a body within its limit
encodings.py     gzip and zstd
long_json.py     long JSON in pieces, numbers straight to arrays
records.py       JSON line by line
fields.py        the fields of a JSON body, a query or an archive, by a schema
admitting.py     refusals by what waits, before a body
lag.py           how late the event loop is
waiting.py       waiting for a job: deadline and disconnection
replies.py       JSON and arrays out
"""
