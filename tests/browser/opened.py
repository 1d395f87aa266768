"""A page that is open in a browser."""

from pathlib import Path

from playwright.sync_api import Browser, Page

LAPTOP, PHONE = 1280, 390


class Opened:
    """A page with what it did while it was open."""

    def __init__(self, browser: Browser, file: Path, width: int, scheme: str):
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        self.complaints: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(file.as_uri())
