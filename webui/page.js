// Says a picture of a gallery by its caption: Gradio calls each "Thumbnail 1 of 6", whatever stands under it.
(() => {
  const name = (button) => {
    const caption = button.querySelector('.caption-label');
    const words = caption === null ? '' : caption.textContent.trim();
    if (words !== '' && button.getAttribute('aria-label') !== words) { button.setAttribute('aria-label', words); }
  };
  const nameAll = () => document.querySelectorAll('button.thumbnail-item').forEach(name);
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) { return; }
    waiting = true;
    requestAnimationFrame(() => { waiting = false; nameAll(); });
  }).observe(document.documentElement, { childList: true, subtree: true, characterData: true });
})();
