"""The fault campaign: crashes, poison files, damaged files, full disks."""
