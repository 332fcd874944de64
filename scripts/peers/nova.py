"""What Cinder asks of Nova: whether a server has a volume, and its external events.

usage: nova.py PORT. A server has no volume. GET /events answers the external events
so far, the last EVENTS_MAX of them.
"""

import collections
import http.server
import json
import sys

EVENTS_MAX = 1000
BODY_MAX = 1 << 20
PORT = int(sys.argv[1])
EVENTS = collections.deque(maxlen=EVENTS_MAX)
VERSION = {'id': 'v2.1', 'status': 'CURRENT', 'version': '2.93', 'min_version': '2.1',
           'links': [{'rel': 'self', 'href': 'http://127.0.0.1:%d/v2.1/' % PORT}]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    timeout = 60

    def body(self):
        length = int(self.headers.get('Content-Length') or 0)
        if not 0 <= length <= BODY_MAX:
            raise ValueError('a body of %d bytes' % length)
        return json.loads(self.rfile.read(length) or b'{}')

    def answer(self, status, what):
        data = json.dumps(what).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path = self.path.split('?')[0].rstrip('/')
        if path == '/events':
            self.answer(200, {'events': list(EVENTS)})
        elif path in ('', '/v2.1'):
            self.answer(200, {'version': VERSION})
        else:
            self.answer(404, {'itemNotFound': {'code': 404, 'message': 'no such object'}})

    def do_POST(self):
        try:
            told = self.body().get('events')
        except ValueError as e:
            self.close_connection = True
            self.answer(400, {'badRequest': {'code': 400, 'message': str(e)}})
            return
        if not self.path.endswith('/os-server-external-events') or not told:
            self.answer(404, {'itemNotFound': {'code': 404, 'message': 'no such object'}})
            return
        EVENTS.extend(told)
        self.answer(200, {'events': [dict(e, status='completed', code=200) for e in told]})


http.server.ThreadingHTTPServer(('127.0.0.1', PORT), Handler).serve_forever()
