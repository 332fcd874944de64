# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Cinder's driver interface suite, with this driver among the others.

Run as python3 -m tests.compliance, for the package prepares eventlet first.
The suite looks for drivers below ./cinder when it is imported, so this changes
to the folder that cinder was installed in before.
"""

import os
import sys
import unittest

import cinder

from ovgate_cinder import iscsi

NAME = 'ovgate_cinder.iscsi.OVGateISCSIDriver'
OPTIONAL = ('VolumeGroupDriver', 'VolumeManagementDriver',
            'VolumeListManageableDriver', 'VolumeSnapshotManagementDriver',
            'VolumeSnapshotRevertDriver')


def main():
    os.chdir(os.path.dirname(os.path.dirname(cinder.__file__)))
    from cinder.tests.compliance import test_volume_drivers as suite
    names = [d.class_fqn for d in suite.VOLUME_DRIVERS]
    if NAME not in names:
        return '%s is not among the %d drivers' % (NAME, len(names))
    from cinder.interface import volume_group_driver
    from cinder.interface import volume_manageable_driver
    from cinder.interface import volume_snapshot_revert
    from cinder.interface import volume_snapshotmanagement_driver
    found = {}
    for module in (volume_group_driver, volume_manageable_driver,
                   volume_snapshot_revert, volume_snapshotmanagement_driver):
        found.update(vars(module))
    for name in OPTIONAL:
        if not issubclass(iscsi.OVGateISCSIDriver, found[name]):
            return '%s is not a %s' % (NAME, name)
    result = unittest.TextTestRunner().run(
        unittest.defaultTestLoader.loadTestsFromModule(suite))
    return 0 if result.wasSuccessful() else 1


if __name__ == '__main__':
    sys.exit(main())
