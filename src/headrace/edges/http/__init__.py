"""HTTP/1.1 on both sides of the byte path: httptools parsers behind the callbacks of an event loop.

`server` reads requests and writes answers, `client` sends requests and reads answers,
`pool` keeps upstream connections, `heads` decides which headers may pass, `fetch` is for
small requests of our own. None of them knows what an LLM is.
"""
