<<<<<<<< HEAD:ui/dist/assets/chunk-F3OHWPZM.js
import{g as m}from"/assets/chunk-TZKR2WVU.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
========
import{h as m}from"/assets/chunk-CGKTBMDI.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
>>>>>>>> 44f1678 (Documentation in the console, the API and the CLI: the guides are part of the program):ui/dist/assets/chunk-DSDHY3M2.js
