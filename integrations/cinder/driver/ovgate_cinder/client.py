# Licensed under the Apache License, Version 2.0; see LICENSE.
"""HTTP client of the ovgate API.

A request goes to the node that answered last. When that one does not answer,
or says that it is stopping or that its backend is away, the next one is asked,
round and round until ``retry_timeout`` is over. That is safe for every request
of the API that is used here: creates carry an Idempotency-Key, the others may
be repeated. Those that may not say so with ``retry=False``, and are repeated
only when no connection came about. A vPool that is full (507) is not asked
again: the scheduler may know another one.
"""

import time
import urllib.parse
import uuid

from oslo_log import log as logging
import requests

from cinder import exception
from cinder.i18n import _

LOG = logging.getLogger(__name__)

ANSWER_MAX = 64 << 20   # bytes; a page of 1000 vDisks is below 4 MiB
PAGE = 1000             # the most that the API gives at once
ITEMS_MAX = 1000000     # of one list
BACKOFF_MAX = 5.0       # seconds between two rounds
TOKEN_MAX = 4096        # bytes of a token file
CHUNK = 1 << 20         # the most that an import or export moves at once


class APIError(exception.VolumeBackendAPIException):
    """The API refused something. ``code`` is its stable word."""

    def __init__(self, request, status, body):
        self.status = status
        self.code = str(body.get('code') or 'internal')
        parts = [str(body.get('message') or 'HTTP status %d' % status)]
        if body.get('object'):
            parts.append('(%s)' % body['object'])
        if body.get('hint'):
            parts.append('- %s' % body['hint'])
        if body.get('requestId'):
            parts.append('[request %s]' % body['requestId'])
        super().__init__(data='ovgate: %s: %s' % (request, ' '.join(parts)))


class Unreachable(exception.VolumeBackendAPIException):
    """No node answered in time."""


def _segment(text):
    return urllib.parse.quote(text, safe='')


def path(*parts):
    """The path of an object, with every part quoted."""
    return '/' + '/'.join(_segment(p) for p in parts)


class Client:
    def __init__(self, urls, token=None, token_file=None, verify=True,
                 ca_file=None, timeout=60, retry_timeout=60):
        self.urls = [u.rstrip('/') + '/api/v1' for u in urls]
        self.timeout = timeout
        self.retry_timeout = retry_timeout
        self._token = token
        self._token_file = token_file
        self._first = 0
        self._session = requests.Session()
        # Neither proxies nor CAs of the environment: the options count.
        self._session.trust_env = False
        self._session.verify = (ca_file or True) if verify else False

    def load_token(self):
        if not self._token_file:
            return
        try:
            with open(self._token_file, encoding='ascii') as f:
                self._token = f.read(TOKEN_MAX).strip()
        except (OSError, ValueError) as e:
            raise exception.InvalidConfigurationValue(
                _('ovgate_token_file %(file)s cannot be read: %(why)s') %
                {'file': self._token_file,
                 'why': getattr(e, 'strerror', None) or 'not ASCII'})

    def _send(self, url, method, where, params, body, data, headers):
        headers = dict(headers, Authorization='Bearer %s' % self._token)
        with self._session.request(
                method, url + where, params=params, json=body, data=data,
                headers=headers, allow_redirects=False, stream=True,
                timeout=(min(10, self.timeout), self.timeout)) as r:
            content = bytearray()
            for part in r.iter_content(1 << 16):
                content += part
                if len(content) > ANSWER_MAX:
                    raise exception.VolumeBackendAPIException(
                        data=_('ovgate: %(m)s %(p)s: the answer is larger '
                               'than %(n)d bytes') %
                        {'m': method, 'p': where, 'n': ANSWER_MAX})
            return r.status_code, r.headers.get('Content-Type', ''), content

    def call(self, method, where, body=None, params=None, data=None,
             create=False, retry=True):
        """Send a request; return what it answered, decoded if it is JSON."""
        headers = {}
        if create:
            headers['Idempotency-Key'] = str(uuid.uuid4())
        if data is not None:
            headers['Content-Type'] = 'application/octet-stream'
        request = '%s %s' % (method, where)
        deadline = time.monotonic() + self.retry_timeout
        wait, renewed = 0.1, False
        while True:
            for n in range(len(self.urls)):
                i = (self._first + n) % len(self.urls)
                try:
                    status, kind, content = self._send(
                        self.urls[i], method, where, params, body, data,
                        headers)
                except requests.exceptions.SSLError as e:
                    error = Unreachable(data=_(
                        'ovgate: %(url)s: its certificate is not trusted '
                        '(%(why)s); see ovgate_ca_file') %
                        {'url': self.urls[i], 'why': e})
                    LOG.warning('%s', error)
                    continue
                except requests.exceptions.RequestException as e:
                    error = Unreachable(data=_(
                        'ovgate: %(request)s: %(url)s does not answer: '
                        '%(why)s; see ovgate_api_urls') %
                        {'request': request, 'url': self.urls[i], 'why': e})
                    LOG.warning('%s', error)
                    if not retry and not isinstance(
                            e, requests.exceptions.ConnectTimeout) and \
                            'NewConnectionError' not in repr(e):
                        raise error
                    continue
                self._first = i
                if status < 300:
                    return self._decode(request, status, kind, content)
                error = APIError(request, status,
                                 self._problem(kind, content))
                if status == 401 and self._token_file and not renewed:
                    renewed = True
                    self.load_token()
                    break
                if status == 429 or (status == 503 and retry):
                    continue
                raise error
            else:
                if time.monotonic() + wait > deadline:
                    raise error
                time.sleep(wait)
                wait = min(2 * wait, BACKOFF_MAX)

    @staticmethod
    def _problem(kind, content):
        if kind.startswith('application/json'):
            try:
                body = requests.compat.json.loads(bytes(content))
            except ValueError:
                return {}
            if isinstance(body, dict):
                return body
        return {}

    @staticmethod
    def _decode(request, status, kind, content):
        if not kind.startswith('application/json'):
            return bytes(content)
        try:
            return requests.compat.json.loads(bytes(content))
        except ValueError:
            raise APIError(request, status,
                           {'message': 'the answer is not JSON'})

    def get(self, where, **params):
        return self.call('GET', where, params=params)

    def find(self, where):
        """GET an object; None when there is none."""
        try:
            return self.get(where)
        except APIError as e:
            if e.status != 404:
                raise
            return None

    def post(self, where, body=None, **kw):
        return self.call('POST', where, body=body or {}, **kw)

    def create(self, where, body):
        return self.post(where, body, create=True)

    def patch(self, where, body):
        return self.call('PATCH', where, body=body)

    def put(self, where, body=None, **kw):
        return self.call('PUT', where, body=body, **kw)

    def delete(self, where, **params):
        """DELETE an object; one that is gone is no error."""
        try:
            self.call('DELETE', where, params=params)
        except APIError as e:
            if e.status != 404:
                raise

    def list(self, where, **params):
        """Yield all items of a list, page by page."""
        params['limit'] = PAGE
        for _page in range(ITEMS_MAX // PAGE):
            answer = self.get(where, **params)
            yield from answer['items']
            if not answer.get('next'):
                return
            params['cursor'] = answer['next']

    def wait(self, where, done, timeout):
        """GET an object until ``done`` of it is true."""
        deadline = time.monotonic() + timeout
        pause = 0.1
        while True:
            found = self.get(where)
            if done(found):
                return found
            if time.monotonic() > deadline:
                raise exception.VolumeBackendAPIException(data=_(
                    'ovgate: %(object)s is not done after %(n)d s; it goes '
                    'on: see ovgate vdisk show, and ovgate_move_timeout') %
                    {'object': where, 'n': timeout})
            time.sleep(pause)
            pause = min(2 * pause, BACKOFF_MAX)
