export TOKEN=S3CRET-in-history
