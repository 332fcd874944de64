<<<<<<<< HEAD:ui/dist/assets/chunk-NW22DCEF.js
import{h as m}from"/assets/chunk-MSOHANZ4.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
========
import{h as m}from"/assets/chunk-7WHVCASF.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
>>>>>>>> aa54e6e (Thresholds of metrics: what passes one for long enough is a cause of health):ui/dist/assets/chunk-XZRBV25G.js
