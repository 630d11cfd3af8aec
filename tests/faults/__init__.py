"""The fault campaign: crashes, files that kill their worker, damaged files, full disks."""
