# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Options of a backend section in cinder.conf."""

from oslo_config import cfg

OPTS = [
    cfg.ListOpt('ovgate_api_urls',
                default=[],
                help='Addresses of ovgate nodes, https://HOST:8443, in order '
                     'of preference. The next one is used while one does not '
                     'answer.'),
    cfg.StrOpt('ovgate_token_file',
               help='File with the bearer token, readable by Cinder only. It '
                    'is read again when the token is refused.'),
    cfg.StrOpt('ovgate_token',
               secret=True,
               help='The bearer token itself, where there is no token file. '
                    'Its user needs the role write.'),
    cfg.StrOpt('ovgate_ca_file',
               help='File with the CA of the nodes, PEM. Unset: the CAs that '
                    'the system trusts.'),
    cfg.BoolOpt('ovgate_tls_verify',
                default=True,
                help='Verify the certificate of the nodes.'),
    cfg.ListOpt('ovgate_vpools',
                default=[],
                help='Names of the vPools that are the pools of this backend. '
                     'Empty: all of them.'),
    cfg.IntOpt('ovgate_request_timeout',
               default=60, min=1, max=600,
               help='Seconds that a node may take to answer a request.'),
    cfg.IntOpt('ovgate_retry_timeout',
               default=60, min=0, max=600,
               help='Seconds for which a request is tried again while no node '
                    'answers.'),
    cfg.IntOpt('ovgate_move_timeout',
               default=86400, min=60,
               help='Seconds that copying a vDisk to another vPool may take.'),
    cfg.BoolOpt('ovgate_purge',
                default=False,
                help='Delete volumes for good, not into the trash of their '
                     'vPool.'),
    cfg.IntOpt('ovgate_store_capacity_gb',
               default=1048576, min=1,
               help='Capacity reported for a vPool on a store that does not '
                    'tell its own, in GiB.'),
]
