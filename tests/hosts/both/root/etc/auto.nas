media -fstype=nfs4,ro nas.example.org:/media
