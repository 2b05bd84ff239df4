"""The student: frozen pretrained blocks, proxies and path weights."""
