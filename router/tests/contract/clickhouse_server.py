"""ClickHouse's engine (chdb) behind a small part of its HTTP interface.

    clickhouse_server.py PORT FOLDER

Statements come as the parameter `query`, their data as the body; other parameters are settings. Answers as
ClickHouse does: 200, or the status and `X-ClickHouse-Exception-Code` of an exception. After the statement
`LOSE THE NEXT ANSWER` the next INSERT is done and not answered for.
"""

import gzip
import http.server
import re
import sys
import threading
import urllib.parse

from chdb import session

port, folder = int(sys.argv[1]), sys.argv[2]
engine = session.Session(folder)
# The engine takes one statement at a time.
turn = threading.Lock()
lose = threading.Event()
NOT_OF_THE_ENGINE = ("query", "database", "wait_end_of_query", "default_format")


def run(url, body):
    parameters = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(url).query, keep_blank_values=True))
    statement = parameters["query"]
    settings = {name: value for name, value in parameters.items() if name not in NOT_OF_THE_ENGINE}
    if statement.startswith("INSERT"):
        before, form = statement.rsplit(" FORMAT ", 1)
        words = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
        statement = f"{before} SETTINGS {words} FORMAT {form}\n{body.decode()}" if words else f"{statement}\n{body.decode()}"
    elif body:
        statement = body.decode()
    if statement == "LOSE THE NEXT ANSWER":
        lose.set()
        return b""
    with turn:
        return engine.query(statement, parameters.get("default_format", "TabSeparated")).bytes()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        encoding = self.headers.get("Content-Encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        code = None
        try:
            assert encoding in (None, "gzip"), encoding
            answer = run(self.path, body)
        except Exception as error:
            answer = str(error).encode()
            found = re.search(r"Code: (\d+)", str(error))
            code = int(found.group(1)) if found else 0
        if lose.is_set() and "INSERT" in self.path:
            lose.clear()
            self.close_connection = True
            return
        self.send_response(200 if code is None else 404 if code == 60 else 500)
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
