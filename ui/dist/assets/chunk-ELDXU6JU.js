<<<<<<<< HEAD:ui/dist/assets/chunk-ELDXU6JU.js
import{i as m}from"/assets/chunk-DUC7PYJ3.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
========
import{i as m}from"/assets/chunk-OHUF6KAP.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
>>>>>>>> 0c3c3dc (Overview: cache hits, copies of journals by state, what fills the disks):ui/dist/assets/chunk-J2VZHRKE.js
